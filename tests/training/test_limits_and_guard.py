"""Every stop condition is honoured, whichever comes first; a loss that is no number ends the run cleanly."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import run_tiny

from fangcun.artifacts import list_checkpoints
from fangcun.errors import FangcunError
from fangcun.tokens import open_split
from fangcun.training import read_steps


def last_step(run: Path) -> int:
    return max(r["step"] for r in read_steps(run / "metrics.jsonl"))


def test_tokens_end_the_run(tmp_path: Path, text: Path) -> None:
    assert run_tiny(text, tmp_path / "run", "--train.max_tokens", str(3 * 4 * 32)) == 0
    assert last_step(tmp_path / "run") == 3


def test_epochs_end_the_run(tmp_path: Path, text: Path) -> None:
    assert run_tiny(text, tmp_path / "run", "--train.max_steps", "10000", "--train.epochs", "1") == 0
    n_tokens = open_split(tmp_path / "run" / "tokens", "train").n_tokens
    assert last_step(tmp_path / "run") in (-(-n_tokens // (4 * 32)), -(-n_tokens // (4 * 32)) + 1)


def test_wall_time_ends_the_run(tmp_path: Path, text: Path) -> None:
    assert run_tiny(text, tmp_path / "run", "--train.max_steps", "1000000", "--train.max_time", "1") == 0
    records = read_steps(tmp_path / "run" / "metrics.jsonl")
    assert 1 <= records[-1]["seconds"] < 30
    assert [record["kind"] for record in records if record["kind"] != "samples"][-1] == "final"
    assert list_checkpoints(tmp_path / "run")


def test_warmup_longer_than_the_run_is_shortened_with_a_warning(tmp_path: Path, text: Path, capsys) -> None:
    assert run_tiny(text, tmp_path / "run", "--train.lr_warmup_steps", "500") == 0
    assert "lr_warmup_steps: 500" in capsys.readouterr().err
    assert read_steps(tmp_path / "run" / "metrics.jsonl")[1]["lr"] > 1e-4


def test_non_finite_loss_stops_and_names_the_last_good_checkpoint(tmp_path: Path, text: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(
        FangcunError, match=r"step \d+: the (loss|gradient norm) is (nan|inf).*(step-0000|no checkpoint)"
    ):
        run_tiny(
            text,
            run,
            "--optimizer.lr",
            "1e30",
            "--train.max_norm",
            "null",
            "--train.max_steps",
            "50",
            "--train.save_interval",
            "1",
        )
    for checkpoint in list_checkpoints(run):  # nothing broken was saved over what was good
        assert (checkpoint / "model.safetensors").stat().st_size > 1000


def test_full_disk_is_noticed_before_the_checkpoint_is_written(tmp_path: Path, text: Path, monkeypatch) -> None:
    from collections import namedtuple

    from fangcun.training import checkpoint

    run = tmp_path / "run"
    assert run_tiny(text, run, "--train.max_steps", "2") == 0
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: usage(10**9, 10**9, 10**6))
    with pytest.raises(FangcunError, match=r"no room for a checkpoint.*step-00000002"):
        run_tiny(text, run, "--train.max_steps", "4")
    monkeypatch.undo()
    assert run_tiny(text, run, "--train.max_steps", "4") == 0


def test_unreachable_devices_are_refused_before_any_work(tmp_path: Path, text: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(FangcunError, match="sees no GPU"):
        run_tiny(text, tmp_path / "run", "--device", "cuda")
    assert not (tmp_path / "run").exists()
