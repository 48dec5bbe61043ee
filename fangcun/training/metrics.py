"""`metrics.jsonl` and `samples.jsonl`: the source of truth for curves, plots and summaries."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fangcun.artifacts import write_text_atomic


def json_line(record: Mapping[str, Any]) -> str:
    """One line of strict JSON: NaN and infinities become strings, which every reader can parse."""
    clean = {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
    return json.dumps(clean, ensure_ascii=False) + "\n"


class StepLog:
    """A JSON-lines file with a `step` in every record, appended as the run goes."""

    def __init__(self, path: Path, *, resume_step: int, drop_evaluations: bool = False) -> None:
        """Records beyond `resume_step`, left by a process that died after its last checkpoint, are cut off.

        `drop_evaluations` cuts the evaluations and samples of `resume_step` itself too: they are made again.
        """
        self.path = path
        if path.is_file():
            lines = path.read_text(encoding="utf-8").split("\n")
            lines = [line + "\n" for line in lines[:-1]] + lines[-1:] * bool(lines[-1])
            kept = [line for line in lines if _kept(line, resume_step, drop_evaluations)]
            if len(kept) != len(lines):
                write_text_atomic(path, "".join(kept))
        self._file = open(path, "a", encoding="utf-8", newline="\n")  # noqa: SIM115  (closed by close)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record; it reaches the operating system at once."""
        self._file.write(json_line(record))
        self._file.flush()

    def sync(self) -> None:
        """Flush to the disk itself, so that a checkpoint never knows more than the log."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _kept(line: str, resume_step: int, drop_evaluations: bool) -> bool:
    step = _step_of(line)
    if step == resume_step and drop_evaluations:
        return json.loads(line).get("kind") == "train"
    return step <= resume_step


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"] if line.endswith("\n") else math.inf
    except (ValueError, KeyError, TypeError):
        return math.inf  # torn by the death of its writer


def read_steps(path: Path) -> list[dict[str, Any]]:
    """All whole records of a StepLog file; an absent file has none."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if _step_of(line + "\n") < math.inf]


def memory_bytes(device: torch.device) -> int:
    """Peak memory so far: of the GPU's allocator, or of this process on a CPU (0 where the system does not tell)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":  # has no peak; what the driver holds now comes closest
        return torch.mps.driver_allocated_memory()
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
