"""What is wrong for all ranks is said once."""

from __future__ import annotations

from pathlib import Path

import pytest
from ranks import run_command, torchrun
from tiny import write_story


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
