"""How long each stage of a run took, so that a rebuild can say what it will cost.

It stands in `timings.json` of the run folder and never in an artefact: these are the same bytes from build to build.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fangcun.artifacts.folder import write_text_atomic

TIMINGS = "timings.json"
_START_SECONDS = 5.0
"""Of every stage: starting processes, importing libraries. Less than this says nothing of much more text."""
_CLEARLY_LITTLE_SECONDS = 60.0
"""Up to here it is told all the same, in proportion, which is too much rather than too little."""
_NOTE_SECONDS = 30.0
"""How often a stage that is not finished is noted, for the case that it is killed."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Work:
    """What a stage is to do, as far as its time depends on it."""

    stage: str
    kind: str
    """The way it is done, such as `bpe`: what another way took says nothing."""
    input_bytes: int | None
    """What it reads: of files as they lie there, of a corpus in UTF-8. None: not known."""


@dataclass(frozen=True)
class Estimate:
    """What a stage will cost."""

    seconds: float
    """From now on."""
    last_seconds: float
    """What it took when it was made last."""


class Timings:
    """The timings of a run folder. What cannot be read or written there is as if it were not known."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.perf_counter) -> None:
        """clock: seconds from any start."""
        self.folder, self.clock = Path(folder), clock

    def estimate(self, work: Work, fingerprint: str) -> Estimate | None:
        """What `work` will take: the last time, in proportion to the input, less what a killed attempt has done of it."""
        took = self._read().get(work.stage, {})
        last, n_bytes = _number(took.get("seconds")), _number(took.get("input_bytes"))
        if last is None or n_bytes is None or work.input_bytes is None or took.get("kind") != work.kind:
            return None
        seconds = _scaled(last, n_bytes, work.input_bytes)
        if seconds is None:
            return None
        return Estimate(max(0.0, seconds - self._done_seconds(work.stage, fingerprint)), last)

    @contextlib.contextmanager
    def measure(self, work: Work, fingerprint: str, progress: Progress) -> Iterator[Progress]:
        """Time the block, which makes the artefact with this fingerprint, and yield `progress` for it to call.

        What killed attempts spent is added where the block goes on from them, that is, where their NAME.work lies.
        """
        before, started = self._done_seconds(work.stage, fingerprint), self.clock()
        noted = started

        def seconds() -> float:
            return round(before + self.clock() - started, 3)

        def note() -> None:
            self._write(work.stage, {"unfinished": {"fingerprint": fingerprint, "seconds": seconds()}})

        def passed_on(done: int, total: int) -> None:
            nonlocal noted
            if self.clock() - noted >= _NOTE_SECONDS:
                noted = self.clock()
                note()
            progress(done, total)

        try:
            yield passed_on
        except BaseException:
            note()
            raise
        taken = {"seconds": seconds(), "input_bytes": work.input_bytes, "kind": work.kind, "unfinished": None}
        self._write(work.stage, taken)

    def _done_seconds(self, stage: str, fingerprint: str) -> float:
        """What was spent on an artefact that is not finished and will be gone on with."""
        unfinished = self._read().get(stage, {}).get("unfinished")
        if not isinstance(unfinished, dict) or unfinished.get("fingerprint") != fingerprint:
            return 0.0
        return _number(unfinished.get("seconds")) or 0.0 if (self.folder / f"{stage}.work").is_dir() else 0.0

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            content = json.loads((self.folder / TIMINGS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        if not isinstance(content, dict):
            return {}
        return {stage: entry for stage, entry in content.items() if isinstance(entry, dict)}

    def _write(self, stage: str, more: dict[str, Any]) -> None:
        content = self._read()
        entry = {key: value for key, value in (content.get(stage, {}) | more).items() if value is not None}
        with contextlib.suppress(OSError):
            write_text_atomic(self.folder / TIMINGS, json.dumps(content | {stage: entry}, indent=1) + "\n")


def _number(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) and value >= 0 else None


def _scaled(seconds: float, before_bytes: float, now_bytes: float) -> float | None:
    """`seconds` for another amount of input; None where they are too few to tell."""
    if before_bytes == now_bytes:
        return seconds
    if not before_bytes:
        return None
    at_most = seconds * now_bytes / before_bytes
    if seconds <= _START_SECONDS:  # how much of it was the start is not known
        return max(seconds, at_most) if at_most <= _CLEARLY_LITTLE_SECONDS else None
    return _START_SECONDS + (seconds - _START_SECONDS) * now_bytes / before_bytes
