"""The records of one run's metrics.jsonl, read on as the file grows, and its curves, thinned so that no spike is lost.

Only what was appended since the last look is read. A file that was replaced (a resumed run cuts off what its last
checkpoint does not know) or got shorter is read anew; a last line that is still being written waits for the next look.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

AXES = ("step", "tokens", "seconds")
MOST_POINTS = 1200
"""Of one curve, as it is sent."""

READ_BYTES = 64 << 20
"""Most bytes taken in at one look; the next look goes on."""


class RunLog:
    """What is known of one metrics.jsonl."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last: dict[str, dict[str, Any]] = {}
        """The newest record of each kind."""
        self.curves: dict[str, dict[str, list[float | None]]] = {}
        """kind.name -> columns step, tokens, seconds and y, in the order of the file."""
        self.changed_at = 0.0
        self._identity: tuple[int, int] | None = None
        self._offset = 0
        self._generation = 0

    @property
    def version(self) -> str:
        """Changes whenever what is known does."""
        return f"{self._generation}-{self._offset}"

    def refresh(self) -> None:
        """Read what was appended. A missing file counts as empty."""
        try:
            with open(self.path, "rb") as file:
                status = os.fstat(file.fileno())
                identity = (status.st_dev, status.st_ino)
                if identity != self._identity or status.st_size < self._offset:
                    self._forget(identity)
                self.changed_at = status.st_mtime
                if status.st_size > self._offset:
                    file.seek(self._offset)
                    data = file.read(READ_BYTES)
                    end = data.rfind(b"\n") + 1
                    self._offset += end
                    for line in data[:end].splitlines():
                        self._take(line)
        except OSError:
            if self._identity is not None:
                self._forget(None)

    def _forget(self, identity: tuple[int, int] | None) -> None:
        self._identity, self._offset = identity, 0
        self._generation += 1
        self.last, self.curves = {}, {}

    def _take(self, line: bytes) -> None:
        try:
            record = json.loads(line)
        except ValueError:
            return  # a line that a crash left half written
        if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
            return
        kind = record["kind"]
        self.last[kind] = record
        axes = [_number(record.get(axis)) for axis in AXES]
        if axes[0] is None:
            return
        for name, value in record.items():
            if name in AXES or isinstance(value, bool) or not isinstance(value, (int, float, str)):
                continue
            number = _number(value)
            if number is None and str(value) not in ("nan", "inf", "-inf"):
                continue
            columns = self.curves.setdefault(f"{kind}.{name}", {"step": [], "tokens": [], "seconds": [], "y": []})
            for axis, place in zip(AXES, axes, strict=True):
                columns[axis].append(place)
            columns["y"].append(number)

    def thinned(self) -> dict[str, dict[str, list[float | None]]]:
        """Every curve with at most about MOST_POINTS points, its smallest and largest in every stretch among them."""
        return {
            name: {key: [column[i] for i in kept] for key, column in columns.items()}
            for name, columns in self.curves.items()
            for kept in [thin(columns["y"], MOST_POINTS)]
        }


def thin(values: Sequence[float | None], most: int) -> list[int]:
    """Indices to keep of a curve: of each stretch the first, the smallest, the largest and a gap (None), if there is one."""
    if len(values) <= most:
        return list(range(len(values)))
    width = -(-len(values) * 4 // most)
    kept: set[int] = {len(values) - 1}
    for start in range(0, len(values), width):
        stretch = range(start, min(start + width, len(values)))
        kept.add(start)
        numbers = [i for i in stretch if values[i] is not None]
        if numbers:
            kept.add(min(numbers, key=lambda i: values[i] or 0.0))
            kept.add(max(numbers, key=lambda i: values[i] or 0.0))
        if len(numbers) < len(stretch):
            kept.add(next(i for i in stretch if values[i] is None))
    return sorted(kept)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None
