"""TensorBoard: event files in the run folder, read by `tensorboard --logdir`."""

from __future__ import annotations

import time
from pathlib import Path

from fangcun.training.trackers.protocol import Opened, Place


def open_tracker(place: Place) -> Opened:
    """Events go to `RUN/tensorboard`, whatever tracking.folder says: TensorBoard finds runs in any folder above.

    A resumed run tells the reader to forget the checkpoint's step and all beyond it (purge_step); what metrics.jsonl
    still has of that step is sent again, so that no point is there twice.
    """
    folder = place.run.resolve() / "tensorboard"
    kept = place.opened_before and any(folder.glob("events.out.tfevents.*"))
    first = max(0, place.resume_step) if kept else 0
    return Opened(TensorBoard(folder, purge_step=first), first)


class TensorBoard:
    """One event file of torch's own writer."""

    def __init__(self, folder: Path, *, purge_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        _wait_for_a_new_second(folder)
        self.hint = f"tensorboard --logdir {folder.parent.parent}"
        self._writer = SummaryWriter(str(folder), purge_step=purge_step)

    def log(self, step: int, scalars: dict[str, float]) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def text(self, step: int, name: str, text: str) -> None:
        # The reader takes it for Markdown: two spaces before the end of a line keep the line.
        self._writer.add_text(name, text.replace("\n", "  \n"), step)
        self._writer.flush()

    def finish(self) -> None:
        self._writer.close()


def _wait_for_a_new_second(folder: Path) -> None:
    """Event files are read in the order of their names, which carry the second: a purge must come after what it purges."""
    stamps = [file.name.split(".")[3] for file in folder.glob("events.out.tfevents.*")]
    newest = max((int(stamp) for stamp in stamps if stamp.isdecimal()), default=0)
    while int(time.time()) == newest:
        time.sleep(0.05)
