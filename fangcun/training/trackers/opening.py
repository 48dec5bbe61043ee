"""Opening the trackers that a recipe names: asked for but not there is an error before training, broken later a warning."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import json
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fangcun.artifacts import write_text_atomic
from fangcun.errors import FangcunError
from fangcun.training.trackers.protocol import Opened, Place, Tracker
from fangcun.training.trackers.records import history, send

_NEEDS = {
    "tensorboard": ("tensorboard", "tensorboard"),
    "swanlab": ("swanlab", '"swanlab[dashboard]"'),
    "wandb": ("wandb", "wandb"),
    "trackio": ("trackio", "trackio"),
}
"""The module that a tracker imports, and what pip is to install for it. The extras of this package bear their names."""


def check_trackers(names: Sequence[str], settings: Mapping[str, Any]) -> None:
    """Raise FangcunError when a tracker of `names` cannot work here: not installed, or online without a login.

    settings: the recipe as dotted keys; `tracking.*` is read.
    """
    for name in _without_jsonl(names):
        module, package = _NEEDS[name]
        modules = [module]
        if name == "swanlab" and settings["tracking.swanlab_mode"] == "local":
            modules.append("swanboard")  # the dashboard, which SwanLab installs apart
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        if missing:
            raise FangcunError(
                f"trackers: {name} was asked for, but the package {missing[0]} is not installed. "
                f"Run pip install {package} (the extra '{name}' of fangcun), or leave {name} out of trackers; metrics.jsonl is always written."
            )
        login = getattr(_backend(name), "login_missing", None)
        if login is not None and (advice := login(settings)):
            raise FangcunError(f"trackers: {advice}")


def open_trackers(
    names: Sequence[str],
    run: Path,
    *,
    title: str,
    settings: dict[str, Any],
    resume_step: int,
    warn: Callable[[str], None],
) -> list[Tracker]:
    """Open the trackers of `names` for the run folder `run`; on the first rank only. "jsonl" needs none.

    Call it when metrics.jsonl and samples.jsonl have been cut at `resume_step`, the step of the checkpoint that the run
    goes on from (-1: a new run): what a tracker lacks, or had beyond that step, is put right from these files. `title`
    is the run's name for people; `settings` is the recipe as dotted keys. Raises FangcunError as check_trackers does;
    whatever breaks afterwards is said once through `warn`, and that tracker is left out until the run is resumed.
    """
    check_trackers(names, settings)
    opened: list[Tracker] = []
    for name in _without_jsonl(names):
        tracker = _Careful(name, warn)
        tracker.open(run, title, settings, resume_step)
        if tracker.works:
            opened.append(tracker)
    return opened


def _without_jsonl(names: Sequence[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name != "jsonl"]


def _backend(name: str) -> Any:
    """The module of a back end. Its library is imported when it is opened, not before."""
    return importlib.import_module(f"fangcun.training.trackers.{name}")


class _Careful:
    """A tracker behind a fence: its first failure is a warning and its end, never the training's."""

    def __init__(self, name: str, warn: Callable[[str], None]) -> None:
        self.name, self.warn = name, warn
        self.hint = ""
        self.works = False
        self._inner: Tracker | None = None

    def open(self, run: Path, title: str, settings: dict[str, Any], resume_step: int) -> None:
        """Open the back end and tell it what it lacks of the run's history."""
        with self._fence("could not be opened"), undisturbed():
            self.works = True
            mode = str(settings.get(f"tracking.{self.name}_mode", ""))
            before = _remembered(run, self.name)
            known = before.get("id") or secrets.token_hex(6)
            there = bool(before.get("opened")) and before.get("mode") == mode
            _remember(run, self.name, known, mode, opened=False)
            place = Place(run, title, settings, known, there, resume_step)
            opened: Opened = _backend(self.name).open_tracker(place)
            self._inner, self.hint = opened.tracker, opened.tracker.hint
            if opened.replay_from is not None:
                for record in history(run, opened.replay_from, resume_step):
                    send([opened.tracker], record)
            _remember(run, self.name, known, mode, opened=True)

    def log(self, step: int, scalars: dict[str, float]) -> None:
        with self._fence("failed"):
            if self._inner is not None:
                self._inner.log(step, scalars)

    def text(self, step: int, name: str, text: str) -> None:
        with self._fence("failed"):
            if self._inner is not None:
                self._inner.text(step, name, text)

    def finish(self) -> None:
        with self._fence("could not finish"), undisturbed():
            if self._inner is not None:
                self._inner.finish()
            self._inner = None

    @contextlib.contextmanager
    def _fence(self, what: str) -> Iterator[None]:
        # SystemExit: a library that gives up on its login must not end the training.
        try:
            yield
        except (Exception, SystemExit) as error:
            self.works, self._inner = False, None
            reason = " ".join(str(error).split()) or type(error).__name__
            self.warn(
                f"trackers: {self.name} {what} ({type(error).__name__}: {reason[:300]}). Training goes on without it; "
                "metrics.jsonl has everything, and resuming the run opens it again."
            )


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Signals, the exception hook and standard output stay ours, whatever a library does to them.

    SwanLab takes over SIGINT, which would end the run without a checkpoint; all of them greet on standard output, where
    the status line stands.
    """
    hook, out = sys.excepthook, sys.stdout
    main = threading.current_thread() is threading.main_thread()
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)]
    handlers = {number: signal.getsignal(number) for number in numbers} if main else {}
    sys.stdout = io.StringIO()
    try:
        yield
    finally:
        sys.excepthook, sys.stdout = hook, out
        for number, handler in handlers.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)


def _state_file(run: Path, name: str) -> Path:
    return run / "trackers" / f"{name}.json"


def _remembered(run: Path, name: str) -> dict[str, Any]:
    """What an earlier part of the run noted of this tracker. A file that is no state of ours counts as none."""
    try:
        state = json.loads(_state_file(run, name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) and isinstance(state.get("id"), str) else {}


def _remember(run: Path, name: str, known: str, mode: str, *, opened: bool) -> None:
    file = _state_file(run, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    state = {"kind": "tracker", "format_version": 1, "tracker": name, "id": known, "mode": mode, "opened": opened}
    write_text_atomic(file, json.dumps(state) + "\n")
