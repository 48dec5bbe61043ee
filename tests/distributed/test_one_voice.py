"""What is wrong for all ranks is said once."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from ranks import run_command, torchrun
from tiny import fangcun, write_story


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--train.global_batch_size", "3", "--train.micro_batch_size", "1"], "3 samples cannot be shared by 2 processes. Start 1, or use --train.global_batch_size 4."),
        (["--train.strategy", "fdsp"], "--train.strategy: expected one of 'ddp', 'fsdp', got 'fdsp'."),
    ],
)  # fmt: skip
def test_a_mistake_is_said_once_and_before_any_stage(tmp_path: Path, flags: list[str], sentence: str) -> None:
    done = torchrun(2, *run_command(write_story(tmp_path), tmp_path / "run", *flags))
    assert done.returncode != 0
    assert done.stderr.count("error: ") == 1
    assert sentence in done.stderr
    assert not (tmp_path / "run" / "corpus").exists()


def test_a_long_rebuild_that_was_not_agreed_to_ends_all_ranks_at_once_and_changes_nothing(tmp_path: Path) -> None:
    text, out = write_story(tmp_path), tmp_path / "run"
    assert fangcun(*run_command(text, out, verb="pack"), env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode == 0
    timings = json.loads((out / "timings.json").read_text(encoding="utf-8"))
    timings["tokens"]["seconds"] = 3000
    (out / "timings.json").write_text(json.dumps(timings), encoding="utf-8")
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    words = run_command(text, out, "--corpus.val_share", "0.3", "--train.max_steps", "1", "--eval.max_iters", "1")
    started = time.monotonic()
    done = torchrun(2, *words)
    assert time.monotonic() - started < 60
    assert done.returncode != 0
    assert done.stderr.count("error: ") == 1 and "fangcun/pipeline.py" not in done.stderr  # no traceback of ours
    assert "there is no terminal to ask at. Nothing was changed. To go on: the same command with --yes." in done.stderr
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    agreed = torchrun(2, *words, "--yes")
    assert agreed.returncode == 0, agreed.stderr
    assert (out / "tokens.previous").is_dir() and (out / "checkpoints").is_dir()
