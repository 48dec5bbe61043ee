"""--offline: say that a download is whole without contacting anyone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fangcun.errors import FangcunError
from fangcun.hubs.record import Record, is_unchanged
from fangcun.hubs.sources import Repository


def check_offline(
    folder: Path,
    record: Record | None,
    repository: Repository,
    include: Sequence[str],
    revision: str | None,
    *,
    verify: bool,
) -> Record:
    """The record of a download that is whole. Raises FangcunError when one is not, or another choice was fetched."""
    again = "Leave --offline away to fetch."
    if record is None or not record.complete:
        raise FangcunError(f"--offline: {folder} holds no finished download of {repository.name}. {again}")
    if revision is not None and revision not in (record.revision, record.commit):
        raise FangcunError(f"--offline: {folder} holds revision {record.revision}, not {revision}. {again}")
    if list(include) != record.include:
        chosen = " ".join(f"--include '{pattern}'" for pattern in record.include) or "no --include"
        raise FangcunError(
            f"--offline: {folder} was fetched with {chosen}, and what another choice means is not known. {again}"
        )
    wrong = [path for path, entry in record.files.items() if not is_unchanged(folder / path, entry, verify=verify)]
    if wrong:
        shown = ", ".join(wrong[:5]) + (" …" if len(wrong) > 5 else "")
        raise FangcunError(
            f"--offline: {len(wrong)} of {len(record.files)} files in {folder} are missing or changed: {shown}. {again}"
        )
    return record
