"""Measured child processes and the speed of the machine right now."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any


def run_timed(
    command: list[str], *, env: dict[str, str] | None = None, cwd: str | None = None
) -> tuple[float, str, str]:
    """Wall seconds, stdout and stderr of a command; a failing one ends the script with its last words."""
    started = time.perf_counter()
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **(env or {})}, cwd=cwd, check=False
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return seconds, done.stdout, done.stderr


def report(record: dict[str, Any]) -> None:
    """One JSON line on stdout."""
    print(json.dumps(record), flush=True)


def median_of(records: list[dict[str, Any]], key: str) -> float:
    """The median of a field."""
    return statistics.median(record[key] for record in records)


def reference_gflops(n: int = 1024, seconds: float = 0.4) -> float:
    """Median GFLOP/s of an fp32 n^3 matrix product in this process."""
    import torch

    a, b = torch.randn(n, n), torch.randn(n, n)
    torch.mm(a, b)
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - started)
    return round(2 * n**3 / statistics.median(times) / 1e9, 1)


def peak_memory_mib() -> int:
    """Largest resident memory of this process so far."""
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
