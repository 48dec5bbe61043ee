"""trackio: curves in an SQLite file on this machine, looked at with `trackio show`. Never a Space, never a server."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from pathlib import Path
from typing import Any

from fangcun.training.trackers.protocol import Opened, Place

_ELSEWHERE = (
    "TRACKIO_SPACE_ID",
    "TRACKIO_SERVER_URL",
    "TRACKIO_BUCKET_ID",
    "TRACKIO_DATASET_ID",
    "TRACKIO_WEBHOOK_URL",
)
"""Variables by which trackio would send the run away, left over from other programs."""


def open_tracker(place: Place) -> Opened:
    """A resumed run replaces its old curves by those told anew from metrics.jsonl."""
    folder = place.folder("trackio")
    before = os.environ.get("TRACKIO_DIR")
    os.environ["TRACKIO_DIR"] = str(folder)  # read once, when trackio is imported
    for name in _ELSEWHERE:
        os.environ.pop(name, None)
    trackio: Any = importlib.import_module("trackio")

    used = Path(trackio.utils.TRACKIO_DIR).resolve()
    if used != folder:
        os.environ["TRACKIO_DIR"] = before or str(used)
        raise RuntimeError(f"trackio writes to {used} in this process already, one process can have one such folder")
    name = f"{place.title}-{place.id}"
    with contextlib.suppress(ValueError):  # no such project yet
        for run in list(trackio.Api().runs(place.project)):
            if run.name == name:
                run.delete()
    return Opened(Trackio(folder, name, place), 0)


class Trackio:
    """One trackio run of this process."""

    def __init__(self, folder: Path, name: str, place: Place) -> None:
        trackio: Any = importlib.import_module("trackio")

        self._trackio = trackio
        variable = f"set TRACKIO_DIR={folder}&" if sys.platform == "win32" else f"TRACKIO_DIR={folder} "
        self.hint = f"{variable}trackio show --project {place.project}"
        self._run = trackio.init(
            place.project,
            name=name,
            config=place.settings,
            resume="never",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log(self, step: int, scalars: dict[str, float]) -> None:
        self._run.log(dict(scalars), step=step)

    def text(self, step: int, name: str, text: str) -> None:
        self._run.log({name: self._trackio.Markdown(text.replace("\n", "  \n"))}, step=step)

    def finish(self) -> None:
        self._trackio.finish()
