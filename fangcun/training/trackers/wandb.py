"""Weights & Biases: a folder that `wandb sync` uploads later, or straight to the server when asked."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fangcun.training.trackers.protocol import Opened, Place

_FINISH_SECONDS = 60
"""An upload that hangs at the end of a run is given up after this long; `wandb sync` can go on with it."""


def login_missing(settings: Mapping[str, Any]) -> str:
    """What to do before the server can be used; empty when nothing is missing."""
    if settings["tracking.wandb_mode"] != "online":
        return ""
    wandb: Any = importlib.import_module("wandb")

    if wandb.api.api_key:
        return ""
    return (
        "tracking.wandb_mode online needs a login: run wandb login (or set WANDB_API_KEY), "
        "or use --tracking.wandb_mode offline."
    )


def open_tracker(place: Place) -> Opened:
    """Offline, a resumed run replaces its old folder by one told anew from metrics.jsonl: one folder, one upload.

    Online the run goes on under its id; steps that the server already has are not sent again.
    """
    folder = place.folder("wandb")
    online = place.settings["tracking.wandb_mode"] == "online"
    if not online:
        for old in folder.glob(f"offline-run-*-{place.id}"):
            shutil.rmtree(old)
    tracker = Wandb(folder, place, online=online)
    return Opened(tracker, tracker.known)


class Wandb:
    """One W&B run of this process."""

    def __init__(self, folder: Path, place: Place, *, online: bool) -> None:
        if not online:
            os.environ["WANDB_ERROR_REPORTING"] = (
                "false"  # read at import; without it wandb calls home about its own errors
            )
        wandb: Any = importlib.import_module("wandb")

        self._wandb = wandb
        # Nothing is collected about this machine, its packages or its code, and the terminal stays ours.
        quiet = wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
            finish_timeout=_FINISH_SECONDS,
        )
        self._run = wandb.init(
            mode="online" if online else "offline",
            dir=str(folder.parent),  # wandb adds its own name
            project=place.project,
            name=place.title,
            id=place.id,
            resume="allow" if online else None,
            config=place.settings,
            settings=quiet,
        )
        self.hint = self._run.url if online else f"wandb sync {folder}/offline-run-*-{place.id}"
        self.known = self._run.step
        """The first step that the server does not have; 0 for a new run, and offline."""

    def log(self, step: int, scalars: dict[str, float]) -> None:
        if step >= self.known:
            self._run.log(scalars, step=step)

    def text(self, step: int, name: str, text: str) -> None:
        if step >= self.known:
            escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace("\n", "<br>")
            self._run.log({name: self._wandb.Html(f"<p>{escaped}</p>", inject=False)}, step=step)

    def finish(self) -> None:
        self._run.finish()
