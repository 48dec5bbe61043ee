"""Before work that takes long is done again: what changed, what it will cost, and above ten minutes the question.

A setting that was changed by mistake, or to see what it does, must not cost an afternoon and the artefact that stood
there. So all of it is known and said before any of it begins.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fangcun.artifacts import (
    MANIFEST,
    Estimate,
    Manifest,
    Progress,
    Timings,
    Work,
    describe_changes,
    previous_of,
    read_manifest,
)
from fangcun.console import Console, format_about, format_bytes
from fangcun.errors import FangcunError

ASK_ABOVE_SECONDS = 600
"""Rebuilds that take longer are asked about."""


class DeclinedError(Exception):
    """The person at the terminal wants no rebuild. Its text says how to go on."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


@dataclass
class Stage:
    """An artefact of a run as it is wanted now, what stands in its place, and how it is made. Raises FangcunError when what
    stands there is damaged."""

    name: str
    path: Path
    fingerprint: str
    """The one that is wanted."""
    build: Callable[[Progress], Manifest]
    describe: Callable[[Manifest], str]
    work: Callable[[], Work]
    """How much there is to do, as far as it is known when it is asked."""
    settings: dict[str, Any] = field(default_factory=dict)
    inputs: list[dict[str, Any]] = field(default_factory=list)
    parents: dict[str, str] = field(default_factory=dict)
    standing: Manifest | None = field(init=False, default=None)
    """What stands at `path`, wanted or not."""
    wanted: Manifest | None = field(init=False, default=None)
    """The artefact that is wanted, once there is one."""
    state: Literal["done", "put back", "changed", "missing"] = field(init=False)

    def __post_init__(self) -> None:
        if (self.path / MANIFEST).is_file():
            self.standing = read_manifest(self.path, self.name)
            if self.standing.fingerprint == self.fingerprint:
                self.state, self.wanted = "done", self.standing
                return
        self.wanted = self._kept()
        self.state = "put back" if self.wanted else "changed" if self.standing else "missing"

    def _kept(self) -> Manifest | None:
        """The one that stood here before, if it is the one that is wanted and whole."""
        try:
            kept = read_manifest(previous_of(self.path), self.name)
        except FangcunError:
            return None
        return kept if kept.fingerprint == self.fingerprint else None

    @property
    def changes(self) -> str:
        """Why what stands here is not what is wanted."""
        assert self.standing is not None
        return describe_changes(self.standing, self.settings, self.inputs, self.parents)


def agree_to_rebuild(stages: Sequence[Stage], timings: Timings, console: Console, *, folder: Path, yes: bool) -> bool:
    """Say which stages will be made anew, why, and at what cost; ask when it is more than ten minutes and not `yes`.

    Returns whether it is more than that. Raises DeclinedError when the answer is no, and FangcunError where there is nobody to
    ask.
    """
    due = [stage for stage in stages if stage.state in ("changed", "missing")]
    if all(stage.state == "missing" for stage in due):
        return False
    costs = {stage.name: timings.estimate(stage.work(), stage.fingerprint) for stage in due}
    for stage in due:
        if stage.state == "changed":
            console.say(f"{stage.name:<10} made anew: {stage.changes} ({_told(costs[stage.name])})")
        elif costs[stage.name]:
            console.say(f"{stage.name:<10} made ({_told(costs[stage.name])})")
    known = [cost.seconds for cost in costs.values() if cost]
    total = f"{'about' if len(known) == len(due) else 'at least'} {format_about(sum(known))}"
    if known and len(due) > 1:
        console.say(f"{'in all':<10} {total}")
    if yes or sum(known) <= ASK_ABOVE_SECONDS:
        return sum(known) > ASK_ABOVE_SECONDS
    names = ", ".join(stage.name for stage in due)
    ways = "To go on: the same command with --yes. To keep this run as it is and begin another: --out NEW."
    if not console.can_ask or _launched():
        raise FangcunError(
            f"{folder}: making {names} anew takes {total}, more than the {format_about(ASK_ABOVE_SECONDS)} that are spent "
            f"without asking, and there is no terminal to ask at. Nothing was changed. {ways}"
        )
    question = f"Make {names} in {folder} anew? What is replaced is kept as NAME.previous. [y/N] "
    try:
        agreed = console.ask(question)
    except KeyboardInterrupt:
        raise DeclinedError(f"\nNothing was changed. {ways}", 130) from None
    if not agreed:
        raise DeclinedError(f"Nothing was changed. {ways}", 1)
    return True


def describe_kept(path: Path, kind: str) -> str | None:
    """Where what stood at `path` before is now, and that it is of no more use to the run; None where nothing was kept."""
    kept = previous_of(path)
    try:
        size_bytes = sum(entry["size_bytes"] for entry in read_manifest(kept, kind).files.values())
    except FangcunError:
        return None
    return f"the one before is kept as {kept} ({format_bytes(size_bytes)}); it may be deleted"


def _launched() -> bool:
    """Whether torchrun started this process: it hands the terminal to all of its processes at once."""
    return "TORCHELASTIC_RUN_ID" in os.environ or os.environ.get("WORLD_SIZE", "1") not in ("", "1")


def _told(cost: Estimate | None) -> str:
    if cost is None:
        return "how long it takes is not known"
    return f"about {format_about(cost.seconds)}; took {format_about(cost.last_seconds)} last time"
