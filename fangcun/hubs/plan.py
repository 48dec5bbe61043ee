"""What of a selection is whole already, what must come, and what an earlier revision has left in the folder."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from fangcun.artifacts.lock import LOCK
from fangcun.console import format_bytes
from fangcun.errors import FangcunError
from fangcun.hubs.fetch import part_path
from fangcun.hubs.listing import Listing, RemoteFile
from fangcun.hubs.record import Entry, Record, is_unchanged, read_record, whole_entry
from fangcun.hubs.selection import Selection
from fangcun.hubs.sources import Repository

STAGE = ".part"
"""Folder of what has come, in the download's own. Hidden, so that `--text` does not read it."""
FILES = "files"


@dataclass
class Plan:
    """What is there and what must come."""

    have: dict[str, Entry] = field(default_factory=dict)
    """In the folder, whole."""
    staged: dict[str, Entry] = field(default_factory=dict)
    """In the stage, whole."""
    kept: dict[str, Entry] = field(default_factory=dict)
    """In the folder from an earlier choice, and still of this revision."""
    stale: list[str] = field(default_factory=list)
    """In the folder from an earlier revision, and not of this one."""
    left: list[str] = field(default_factory=list)
    """As those, but changed here since: they stay, and are the user's from now on."""
    changed: list[str] = field(default_factory=list)
    """Fetched before and changed here since."""
    missing: list[RemoteFile] = field(default_factory=list)


def check_folder(folder: Path, repository: Repository) -> Record | None:
    """The record of an earlier download. Raises FangcunError when something else is there."""
    record = read_record(folder)
    begun = read_record(folder / STAGE)
    for found in (record, begun):
        if found is not None and not found.is_of(repository):
            raise FangcunError(
                f"{folder} holds {found.name} ({found.kind}) from {found.endpoint}: choose another folder with --out."
            )
    ours = record is not None or begun is not None or not folder.exists()
    if not ours and not (folder.is_dir() and all(path.name in (LOCK, STAGE) for path in folder.iterdir())):
        raise FangcunError(
            f"{folder} is there and is no download: nothing was contacted; choose another folder with --out."
        )
    return record


def make_plan(folder: Path, listing: Listing, selection: Selection, record: Record | None, *, verify: bool) -> Plan:
    """Compare the selection with what is there. Reads files whose time and size nobody vouches for; with `verify`, all.

    Raises FangcunError where a file would have to be overwritten that did not come from here.
    """
    stage = folder / STAGE
    begun = read_record(stage)
    old, staged = record.files if record else {}, begun.files if begun else {}
    plan = Plan()
    for file in selection.files:
        path, place = file.path, folder / file.path
        # A process that ended while files appeared left some of them in the folder that only the stage's record knows.
        entry = whole_entry(place, file, (old.get(path), staged.get(path)), verify=verify)
        if entry is not None:
            plan.have[path] = entry
            continue
        entry = whole_entry(stage / FILES / path, file, (staged.get(path),), verify=verify)
        if entry is not None:
            plan.staged[path] = entry
        else:
            plan.missing.append(file)
        if place.exists() and path not in old and path not in staged:
            raise FangcunError(
                f"{place} did not come from this download: move it away, or choose another folder with --out."
            )
        if place.exists() and path in old and not is_unchanged(place, old[path], verify=verify):
            plan.changed.append(path)
    _look_at_others(plan, folder, listing, selection, old, verify=verify)
    return plan


def _look_at_others(
    plan: Plan, folder: Path, listing: Listing, selection: Selection, old: dict[str, Entry], *, verify: bool
) -> None:
    chosen = {file.path for file in selection.files}
    remote = {file.path: file for file in listing.files}
    for path in sorted(old.keys() - chosen):
        same = remote.get(path)
        entry = whole_entry(folder / path, same, (old[path],), verify=verify) if same else None
        if entry is not None:
            plan.kept[path] = entry
        elif is_unchanged(folder / path, old[path], verify=verify):
            plan.stale.append(path)
        elif (folder / path).exists():
            plan.left.append(path)


def check_space(folder: Path, plan: Plan) -> None:
    """Raise FangcunError when the disk has no room for what is missing."""
    parts = [part_path(folder / STAGE, file) for file in plan.missing]
    here_bytes = sum(part.stat().st_size for part in parts if part.is_file())
    needed_bytes = sum(file.size_bytes for file in plan.missing) - here_bytes
    free_bytes = shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        raise FangcunError(
            f"no room: {folder} has {format_bytes(free_bytes)} free, {format_bytes(needed_bytes)} are to come. Free some space, "
            "choose a folder elsewhere with --out, or fewer files with --include."
        )
