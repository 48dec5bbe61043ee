"""What every tracker does, and what a back end is given to open one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class Tracker(Protocol):
    """Somewhere that curves and sample texts go. Only the first rank has any."""

    hint: str
    """How to look at it: a command to paste."""

    def log(self, step: int, scalars: dict[str, float]) -> None:
        """Points of curves at `step`. The same step may come twice, with other names."""
        ...

    def text(self, step: int, name: str, text: str) -> None:
        """A text written at `step`."""
        ...

    def finish(self) -> None:
        """Write out what is pending, and let go of files and threads."""
        ...


@dataclass(frozen=True)
class Place:
    """Where a back end keeps what belongs to this run, and what it is called there."""

    run: Path
    title: str
    settings: dict[str, Any]
    """The recipe as dotted keys: `tracking.*` is read here, and all of it is shown as the run's configuration."""
    id: str
    """The run's name for machines, the same for all parts of the run."""
    opened_before: bool
    """An earlier part of this run opened this tracker in the same mode and told it all there was."""
    resume_step: int
    """Step of the checkpoint that the run goes on from; -1 for a new run."""

    @property
    def project(self) -> str:
        """The project that the run is filed under."""
        return self.settings["tracking.project"]

    def folder(self, name: str) -> Path:
        """Folder of back end `name`: in tracking.folder, else in the run folder. Made, and absolute."""
        shared = self.settings["tracking.folder"]
        folder = (Path(shared) if shared else self.run / "trackers").resolve() / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


@dataclass(frozen=True)
class Opened:
    """A tracker, and what of the run's history it still has to be told."""

    tracker: Tracker
    replay_from: int | None
    """Records of this step and later are sent again from metrics.jsonl and samples.jsonl. None: it has them all."""
