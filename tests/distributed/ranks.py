"""Runs of several processes on this machine, started by torchrun as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tiny import tiny_flags

from fangcun.training import read_steps


def torchrun(
    n_processes: int, *arguments: str, timeout: float = 240, flags: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """`torchrun --nproc_per_node N -m fangcun ARGUMENTS`."""
    return subprocess.run(
        torchrun_command(n_processes, *arguments, flags=flags),
        capture_output=True, text=True, encoding="utf-8", timeout=timeout, check=False, env=environment(),
    )  # fmt: skip


def torchrun_command(n_processes: int, *arguments: str, flags: tuple[str, ...] = ()) -> list[str]:
    """The words of that command."""
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        str(n_processes),
        *flags,
    ]
    return [*launcher, "-m", "fangcun", *arguments]


def environment() -> dict[str, str]:
    """One thread a process, and nothing that another launcher left."""
    kept = {
        k: v
        for k, v in os.environ.items()
        if k not in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    }
    return {**kept, "OMP_NUM_THREADS": "1"}


def run_command(text: Path, out: Path, *flags: str, verb: str = "run") -> list[str]:
    """The tiny run of `tiny.TINY`, with some flags changed."""
    return [verb, "demo", *tiny_flags("--text", str(text), "--out", str(out), *flags)]


def trace(run: Path, key: str = "loss", kind: str = "train") -> list[float]:
    """A value of every logged step."""
    return [record[key] for record in read_steps(run / "metrics.jsonl") if record["kind"] == kind]
