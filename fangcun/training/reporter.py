"""All that a run tells while it goes: metrics.jsonl and samples.jsonl, trackers, and lines for people.

One rank speaks, the first; on the others everything here is silent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
        open_trackers: Callable[[int], Sequence[Tracker]] | None = None,
    ) -> None:
        """Records beyond `resume_step` are cut off (see `StepLog`).

        speaks: false on all ranks but the first. open_trackers: opens the trackers, given the step that the run goes on
        from, once the files are cut.
        """
        self.run, self.console, self.speaks, self._open_trackers = run, console, speaks, open_trackers
        self._open(resume_step, drop_evaluations)

    def _open(self, resume_step: int, drop_evaluations: bool) -> None:
        self._logs: dict[str, StepLog] = {}
        self.trackers: Sequence[Tracker] = ()
        if not self.speaks:
            return
        for name in ("metrics", "samples"):
            path = self.run / f"{name}.jsonl"
            self._logs[name] = StepLog(path, resume_step=resume_step, drop_evaluations=drop_evaluations)
        if self._open_trackers is not None:
            self.trackers = self._open_trackers(resume_step)

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
        """Cut files and curves back to `step`, to which the run has gone back."""
        self.close()
        self._open(step, drop_evaluations=False)

    def close(self) -> None:
        """Close the files and end the trackers."""
        for log in self._logs.values():
            log.close()
        for tracker in self.trackers:
            tracker.finish()
