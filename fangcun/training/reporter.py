"""All that a run tells while it goes: metrics.jsonl and samples.jsonl, trackers, and lines for people.

One rank speaks, the first; on the others everything here is silent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fangcun.console import Console, format_status
from fangcun.training.metrics import StepLog
from fangcun.training.trackers import Tracker, send


class Reporter:
    """Where the loop sends its numbers and texts."""

    def __init__(
        self,
        run: Path,
        console: Console,
        *,
        resume_step: int,
        drop_evaluations: bool = False,
        speaks: bool = True,
    ) -> None:
        """Records beyond `resume_step` are cut off (see `StepLog`). speaks: false on all ranks but the first."""
        self.run, self.console, self.speaks = run, console, speaks
        self.trackers: Sequence[Tracker] = ()
        """To be set once the files are cut, which is when trackers may be opened."""
        self._open(resume_step, drop_evaluations)

    def _open(self, resume_step: int, drop_evaluations: bool) -> None:
        self._logs: dict[str, StepLog] = {}
        if self.speaks:
            for name in ("metrics", "samples"):
                path = self.run / f"{name}.jsonl"
                self._logs[name] = StepLog(path, resume_step=resume_step, drop_evaluations=drop_evaluations)

    def record(self, record: Mapping[str, Any]) -> None:
        """A line of metrics.jsonl (with `kind` and `step`), and a point on each tracker's curves."""
        if not self.speaks:
            return
        self._logs["metrics"].write(record)
        send(self.trackers, record)

    def sample(self, step: int, number: int, prompt: str, text: str) -> None:
        """What the model made of a prompt."""
        if not self.speaks:
            return
        record = {"kind": "sample", "step": step, "prompt": prompt, "text": text}
        self._logs["samples"].write(record)
        send(self.trackers, record)
        if number == 0:
            self.console.say(f"  {prompt}▸{text[:80]}".replace("\n", "⏎"))

    def say(self, text: str) -> None:
        """A line that stays."""
        if self.speaks:
            self.console.say(text)

    def warn(self, text: str) -> None:
        """A line that stays, on standard error."""
        if self.speaks:
            self.console.warn(text)

    def status(self, record: Mapping[str, Any], last_step: int | None, eta_seconds: float | None) -> None:
        """The line that shows how the run stands."""
        if self.speaks:
            self.console.status(format_status(record, last_step=last_step, eta_seconds=eta_seconds))

    def sync(self) -> None:
        """All that was recorded reaches the disk: a checkpoint must never know more than the logs."""
        for log in self._logs.values():
            log.sync()

    def rewind(self, step: int) -> None:
        """Cut the files back to `step`, to which the run has gone back. Trackers keep what they have."""
        self._close_files()
        self._open(step, drop_evaluations=False)

    def close(self) -> None:
        """Close the files and end the trackers."""
        self._close_files()
        for tracker in self.trackers:
            tracker.finish()

    def _close_files(self) -> None:
        for log in self._logs.values():
            log.close()
