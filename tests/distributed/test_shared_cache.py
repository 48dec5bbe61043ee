"""Several processes of one run read tokens from a URL through one small cache, and train as one process on the folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from ranks import torchrun, trace
from tiny import run_tiny, tiny_flags

SHARED = ("--train.global_batch_size", "8", "--train.micro_batch_size", "4", "--train.max_steps", "10")


@pytest.mark.slow
def test_two_ranks_share_a_cache(tmp_path: Path, text: Path) -> None:
    assert run_tiny(text, tmp_path / "near", *SHARED) == 0
    cache = ("--tokens.cache_folder", str(tmp_path / "cache"), "--tokens.cache_bytes", "20000")
    afar = ("--tokens.path", (tmp_path / "near").as_uri(), "--out", str(tmp_path / "far"))
    done = torchrun(2, "run", "demo", *tiny_flags(*SHARED, *afar, *cache, leave_out="--tokenizer.vocab_size"))
    assert done.returncode == 0, done.stderr
    assert trace(tmp_path / "far") == pytest.approx(trace(tmp_path / "near"), abs=1e-5)
    assert sum(file.stat().st_size for file in (tmp_path / "cache").rglob("*.block")) <= 20_000
    assert done.stdout.count("tokens     from file://") == 1  # one voice
