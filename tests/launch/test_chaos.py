"""A handful of the runs of bench/chaos.py: ranks killed, told to end, on a full disk; nothing is lost, nothing is torn."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHAOS = Path(__file__).resolve().parent.parent.parent / "bench" / "chaos.py"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="ranks are found through /proc")
def test_whatever_is_done_to_a_run_it_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    words = ["--runs", "3", "--seed", "3", "--only", "kill", "--only", "term-all", "--only", "full"]
    done = subprocess.run(
        [sys.executable, str(CHAOS), *words, "--folder", str(tmp_path)], env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", timeout=580, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "0 violations" in done.stdout
