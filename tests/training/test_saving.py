"""Checkpoints are written beside the training, and are what a training that waited would have written."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from tiny import run_tiny, weights_of

from fangcun.artifacts import list_checkpoints, read_manifest
from fangcun.errors import FangcunError
from fangcun.training import saving


def test_a_save_in_the_background_holds_the_moment_it_was_asked_for(tmp_path: Path, text: Path, monkeypatch) -> None:
    waiting, beside = tmp_path / "waiting", tmp_path / "beside"
    every = ("--train.save_interval", "1", "--checkpoint.keep_last", "9", "--eval.interval", "100")
    assert run_tiny(text, waiting, *every, "--checkpoint.background", "false") == 0
    # The writer begins when the training has gone on: what it writes must be a copy.
    gone_on, real = threading.Event(), saving.fill_checkpoint

    def late(*args, **kwargs) -> None:
        gone_on.wait(0.2)
        real(*args, **kwargs)

    monkeypatch.setattr(saving, "fill_checkpoint", late)
    assert run_tiny(text, beside, *every) == 0
    kept = [list_checkpoints(run) for run in (waiting, beside)]
    assert [c.name for c in kept[0]] == [c.name for c in kept[1]]
    assert len(kept[0]) == 6
    for ours, theirs in zip(*kept, strict=True):
        assert weights_of(ours) == weights_of(theirs)


def test_a_save_that_fails_ends_the_run_and_harms_nothing_written(tmp_path: Path, text: Path, monkeypatch) -> None:
    real, calls = saving.fill_checkpoint, []

    def failing(temporary: Path, *args, **kwargs) -> None:
        calls.append(temporary)
        real(temporary, *args, **kwargs)
        if len(calls) == 2:
            raise OSError(28, "No space left on device", str(temporary))

    monkeypatch.setattr(saving, "fill_checkpoint", failing)
    run = tmp_path / "run"
    with pytest.raises((OSError, FangcunError), match="No space left"):
        run_tiny(text, run, "--train.save_interval", "2", "--train.max_steps", "50", "--eval.interval", "100")
    monkeypatch.undo()
    kept = list_checkpoints(run)
    assert [c.name for c in kept] == ["step-00000002"]
    read_manifest(kept[0], "checkpoint", verify=True)
    assert run_tiny(text, run, "--train.max_steps", "4") == 0
    assert not list((run / "checkpoints").glob("*.tmp*"))


def test_deterministic_mode_gives_the_same_bytes_twice(tmp_path: Path, text: Path) -> None:
    import torch

    try:
        for name in ("a", "b"):
            assert run_tiny(text, tmp_path / name, "--deterministic", "true", "--model.dropout", "0.1") == 0
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert weights_of(list_checkpoints(tmp_path / "a")[-1]) == weights_of(list_checkpoints(tmp_path / "b")[-1])
