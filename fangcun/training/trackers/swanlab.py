"""SwanLab: experiments on this machine (`swanlab watch`), for a later upload (`swanlab sync`), or in the cloud."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fangcun.training.trackers.protocol import Opened, Place

_MODES = {"local": "local", "offline": "offline", "cloud": "online"}


def login_missing(settings: Mapping[str, Any]) -> str:
    """What to do before the cloud can be used; empty when nothing is missing."""
    if settings["tracking.swanlab_mode"] != "cloud":
        return ""
    swanlab: Any = importlib.import_module("swanlab")

    if swanlab.Settings().api_key:
        return ""
    return (
        "tracking.swanlab_mode cloud needs a login: run swanlab login (or set SWANLAB_API_KEY), "
        "or use --tracking.swanlab_mode local."
    )


def open_tracker(place: Place) -> Opened:
    """Kept on this machine, a resumed run replaces its old experiment by one told anew from metrics.jsonl.

    SwanLab's local mode cannot go on with an experiment. In the cloud the run goes on under its id.
    """
    mode = place.settings["tracking.swanlab_mode"]
    folder = place.folder("swanlab")
    online = mode == "cloud"
    if not online:
        _forget(folder, place.id)
    tracker = SwanLab(folder, place, mode)
    return Opened(tracker, None if online and place.opened_before else 0)


class SwanLab:
    """One SwanLab run of this process."""

    def __init__(self, folder: Path, place: Place, mode: str) -> None:
        swanlab: Any = importlib.import_module("swanlab")

        self._swanlab = swanlab
        self.hint = {
            "local": f"swanlab watch {folder}",
            "offline": f"swanlab sync {folder}",
            "cloud": "https://swanlab.cn",
        }[mode]
        if mode != "cloud":
            os.environ.pop("SWANLAB_WEBHOOK", None)  # it would send a message at each start
        # Nothing is collected about this machine or its packages, and the terminal stays ours.
        quiet = swanlab.Settings(
            interactive=False,
            terminal=swanlab.Settings.Terminal(proxy_type="none"),
            probe=swanlab.Settings.Probe(
                hardware=False, runtime=False, requirements=False, git=False, swanlab=False, monitor=False
            ),
        )
        self._run = swanlab.init(
            mode=_MODES[mode],
            log_dir=str(folder),
            project=place.project,
            name=place.title,
            id=place.id,
            resume="allow",
            config=place.settings,
            settings=quiet,
        )

    def log(self, step: int, scalars: dict[str, float]) -> None:
        self._run.log(scalars, step=step)

    def text(self, step: int, name: str, text: str) -> None:
        self._run.log({name: self._swanlab.Text(text)}, step=step)

    def finish(self) -> None:
        self._run.finish()


def _forget(folder: Path, known: str) -> None:
    """Remove the folders of the run `known`, and what the dashboard's data base has of it."""
    names = [old.name for old in folder.glob(f"run-*-{known}")]
    if names and (folder / "runs.swanlab").is_file() and importlib.util.find_spec("swanboard"):
        importlib.import_module("swanboard.db").connect(autocreate=True, path=str(folder))
        models: Any = importlib.import_module("swanboard.db.models")
        models.Experiment.delete().where(models.Experiment.run_id.in_(names)).execute()
        # The dashboard also draws all experiments in one chart; one that nobody draws in any more breaks the next.
        idle = [chart.id for chart in models.Chart.select() if chart.sources.count() == 0]
        models.Chart.delete().where(models.Chart.id.in_(idle)).execute()
    for name in names:
        shutil.rmtree(folder / name)
