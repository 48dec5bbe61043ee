"""From a record of `metrics.jsonl` or `samples.jsonl` to curves and texts; the same for live records and for history."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fangcun.training.metrics import read_steps
from fangcun.training.trackers.protocol import Tracker

_NAME_LENGTH = 32
_NO_CURVES = ("step", "seconds")
"""Axes, not curves: every dashboard has its own step and clock."""


def scalars_of(record: Mapping[str, Any]) -> dict[str, float]:
    """Finite numbers of a metrics record as `kind/name`: {"train/loss": 3.1, "train/lr": 0.001}, {"eval/val_loss": …}."""
    return {
        f"{record['kind']}/{name}": float(value)
        for name, value in record.items()
        if name not in _NO_CURVES
        and isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
    }


def text_of(record: Mapping[str, Any]) -> tuple[str, str]:
    """(name, text) of a samples record. The name is the prompt, cut where it is long, and another for each prompt."""
    prompt: str = record["prompt"]
    name = " ".join("".join(c if c.isprintable() else " " for c in prompt).split())[:_NAME_LENGTH].strip("./ ")
    if name != prompt or not name:
        name = f"{name} {zlib.crc32(prompt.encode()):08x}".strip()
    return f"samples/{name}", prompt + record["text"]


def send(trackers: Iterable[Tracker], record: Mapping[str, Any]) -> None:
    """Hand one record to every tracker: a sample as a text, anything else as points of curves."""
    for tracker in trackers:
        if record["kind"] == "sample":
            tracker.text(record["step"], *text_of(record))
        elif scalars := scalars_of(record):
            tracker.log(record["step"], scalars)


def history(run: Path, first_step: int, last_step: int) -> list[dict[str, Any]]:
    """What the run's files hold of these steps, in the order of steps, numbers before texts."""
    records = [r for file in ("metrics.jsonl", "samples.jsonl") for r in read_steps(run / file)]
    return sorted((r for r in records if first_step <= r["step"] <= last_step), key=lambda r: r["step"])
