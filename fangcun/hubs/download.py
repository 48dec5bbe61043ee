"""A repository into a folder: list, choose, fetch what is not there yet, and let it appear when all of it is whole.

What comes lies in a hidden folder `.part` until the last file is checked, so that nobody trains on half a corpus; then the
files are renamed to their places, and `download.json` is written.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fangcun.artifacts import RunLock
from fangcun.artifacts.folder import discard, sync_folder
from fangcun.console import Console, counted, format_bytes
from fangcun.errors import ConfigError, FangcunError
from fangcun.hubs import huggingface, modelscope
from fangcun.hubs.failures import StatusError
from fangcun.hubs.listing import Listing
from fangcun.hubs.offline import check_offline
from fangcun.hubs.plan import FILES, STAGE, Plan, check_folder, check_space, make_plan
from fangcun.hubs.progress import fetch_with_progress
from fangcun.hubs.record import Entry, Record, read_record
from fangcun.hubs.refusals import list_error
from fangcun.hubs.selection import Selection, select
from fangcun.hubs.sources import Repository, choose
from fangcun.hubs.transport import Transport

MOST_CONNECTIONS = 32
_DISK_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


@dataclass(frozen=True)
class Download:
    """What was done."""

    folder: Path
    revision: str
    """Branch, tag or commit that was asked for."""
    commit: str | None
    """The commit that it was, where the hub tells."""
    files: dict[str, Entry]
    """Path below the folder -> size, sha256 and what it was checked against."""
    left_out: dict[str, str]
    """Path -> why it was not fetched."""
    fetched: list[str]
    """Paths that came now; the others were there."""


def download(
    name: str,
    *,
    source: str | None,
    kind: str = "dataset",
    include: Sequence[str] = (),
    revision: str | None = None,
    out: Path | str | None = None,
    offline: bool = False,
    dry_run: bool = False,
    verify: bool = False,
    connections: int = 4,
    send_token: bool = False,
    console: Console | None = None,
) -> Download:
    """Fetch a dataset or a model into the folder `out` (default: downloads/OWNER/NAME).

    source: modelscope, hf-mirror, huggingface, or the address of a mirror of the Hugging Face API; without one nothing is
    contacted. include: patterns of the files that are meant, see `selection.select`. offline: contact nothing, see that
    all is whole. dry_run: list only. verify: read every file again, do not trust times. connections: files at a time.
    send_token: let a mirror see HF_TOKEN. Interrupted, it goes on where it was when it is called again.

    Raises ConfigError for what cannot be meant, FangcunError for what the hub, the network or the disk does not give.
    """
    repository = choose(name, source, kind, send_token=send_token)
    folder = Path(out).expanduser() if out is not None else Path("downloads", *name.split("/"))
    if not 1 <= connections <= MOST_CONNECTIONS:
        raise ConfigError(f"--connections: expected 1 to {MOST_CONNECTIONS}, got {connections}.")
    console = console or Console()
    record = check_folder(folder, repository)
    if offline:
        record = check_offline(folder, record, repository, include, revision, verify=verify)
        console.say(f"all of {folder} is here and whole ({counted(len(record.files), 'file')}); nothing was contacted")
        return Download(folder, record.revision, record.commit, record.files, {}, [])
    transport = Transport(repository)
    listing = _list(transport, revision)
    selection = select(listing, include)
    _say_listing(console, repository, listing, selection)
    if dry_run:
        for file in selection.files:
            console.say(f"{file.size_bytes:>15,}  {file.path}")
        return Download(folder, listing.revision, listing.commit, {}, selection.left_out, [])
    if not selection.files:
        raise FangcunError(f"{name} has no file that is fetched unasked: name what you want with --include.")
    new = Record(
        repository.source, repository.endpoint, kind, name, listing.revision, listing.commit, list(include)
    )  # fmt: skip
    with RunLock(folder):
        record = read_record(folder)  # another process may have finished it meanwhile
        plan = make_plan(folder, listing, selection, record, verify=verify)
        _warn(console, folder, plan, listing.revision)
        check_space(folder, plan)
        if plan.missing and (plan.have or plan.staged):
            console.say(f"here already: {counted(len(plan.have) + len(plan.staged), 'file')}")
        if plan.missing:
            _fetch(transport, folder, plan, new, connections, console)
        _appear(folder, plan, new, record)
    done = Download(
        folder, new.revision, new.commit, new.files, selection.left_out, [file.path for file in plan.missing]
    )  # fmt: skip
    _say_done(console, done)
    return done


def _list(transport: Transport, revision: str | None) -> Listing:
    hub = modelscope if transport.repository.is_modelscope else huggingface
    try:
        return hub.list_repository(transport, revision)
    except StatusError as refusal:
        raise list_error(refusal, transport, revision or hub.DEFAULT_REVISION) from refusal


def _say_listing(console: Console, repository: Repository, listing: Listing, selection: Selection) -> None:
    size = format_bytes(sum(file.size_bytes for file in selection.files))
    commit = f", commit {listing.commit[:8]}" if listing.commit and listing.commit != listing.revision else ""
    console.say(
        f"{repository.name} ({repository.kind}) at {repository.host}, revision {listing.revision}{commit}: "
        f"{counted(len(selection.files), 'file')}, {size}"
    )
    for reason in dict.fromkeys(selection.left_out.values()):
        paths = [path for path, why in selection.left_out.items() if why == reason]
        shown = ", ".join(paths[:5]) + (" …" if len(paths) > 5 else "")
        console.say(f"left out, {reason}: {shown}")


def _say_done(console: Console, done: Download) -> None:
    size = format_bytes(sum(entry.size_bytes for entry in done.files.values()))
    ways = [entry.checked_by for entry in done.files.values()]
    checked = ", ".join(f"{ways.count(way)} by {way}" for way in sorted(set(ways)))
    came = f"{len(done.fetched)} of them now" if done.fetched else "all of them before"
    console.say(f"{counted(len(done.files), 'file')}, {size} in {done.folder}, {came}; checked: {checked}")


def _warn(console: Console, folder: Path, plan: Plan, revision: str) -> None:
    for path in plan.changed:
        console.warn(f"{folder / path} was changed here since it was fetched: it is fetched again.")
    for path in plan.left:
        console.warn(
            f"{folder / path} is not of revision {revision}, and was changed here: it stays, no part of this download any more."
        )


def _fetch(transport: Transport, folder: Path, plan: Plan, new: Record, connections: int, console: Console) -> None:
    stage = folder / STAGE
    stage.mkdir(exist_ok=True)
    new.files = dict(plan.staged)
    new.write(stage)
    try:
        fetch_with_progress(transport, plan.missing, stage, new, connections, console)
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        raise FangcunError(
            f"no space left for {folder}. What was fetched is kept: free some space and run the same command again."
        ) from error
    except KeyboardInterrupt:
        console.say(f"Stopped. What was fetched is kept in {stage}: the same command goes on from there.")
        raise
    plan.staged = new.files


def _appear(folder: Path, plan: Plan, new: Record, old: Record | None) -> None:
    """Take away what is of an earlier revision, rename the staged files to their places, and write the record."""
    for path in plan.stale:
        discard(folder / path)
        for parent in (folder / path).parents:
            if parent == folder or not parent.is_dir() or any(parent.iterdir()):
                break
            parent.rmdir()
    for path in plan.staged:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        (folder / STAGE / FILES / path).replace(target)
    new.files = dict(sorted((plan.kept | plan.have | plan.staged).items()))
    new.complete = True
    if old != new:
        new.write(folder)
    sync_folder(folder)
    discard(folder / STAGE)
