"""Clearing up after dead writers: only names that Fangcun's own writers give, only where they write."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from fangcun.artifacts.folder import discard, keep_aside
from fangcun.errors import FangcunError

_IN_RUN = re.compile(
    r"(corpus|tokenizer|tokens)\.tmp-(old-)?\d+|(recipe\.yaml|timings\.json|[^/]+\.jsonl)\.tmp-\d+|writer\.lock\.\d+"
)
_IN_CHECKPOINTS = re.compile(r"step-\d+\.tmp-(\d+|old|old-\d+)")
_MOVED_ASIDE = re.compile(r"(.+)\.tmp-old-\d+")
"""What a writer was about to replace. (`step-N.tmp-old`, without a process, was to be deleted.)"""


def remove_stale(folder: Path) -> list[Path]:
    """Delete what dead writers left in the run `folder` and its checkpoints/; return the deleted. Call with the lock held.

    An artefact that its writer had moved aside gets its name back where nothing took its place, and the name under which
    it is kept (NAME.previous) where another did.
    """
    removed = []
    for place, pattern in ((Path(folder), _IN_RUN), (Path(folder) / "checkpoints", _IN_CHECKPOINTS)):
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            if not pattern.fullmatch(path.name):
                continue
            aside = _MOVED_ASIDE.fullmatch(path.name)
            if aside and not os.path.lexists(path.with_name(aside[1])):
                path.rename(path.with_name(aside[1]))
                continue
            if aside and pattern is _IN_RUN and keep_aside(path, path.with_name(aside[1])):
                continue
            discard(path)
            removed.append(path)
    return removed


TASKS_MARK = "tasks"
"""Key in the `state.json` of a folder NAME.work that tasks of an executor write (fangcun/cluster)."""


def refuse_work_of_tasks(work: Path) -> None:
    """Raise FangcunError where tasks have left unfinished work: a single process would throw it away."""
    try:
        state = json.loads((work / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if TASKS_MARK in state:
        raise FangcunError(
            f"{work} holds what tasks of an executor have done, which a single process cannot go on with. Give the same "
            "--cluster.executor again, or remove the folder to begin anew without."
        )
