"""`download.json`: where a folder's files are from and what they are, and by it whether they are whole."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fangcun.artifacts import write_text_atomic
from fangcun.errors import FangcunError
from fangcun.hubs.checksum import Digests, agrees, file_digests
from fangcun.hubs.listing import RemoteFile, check_path
from fangcun.hubs.sources import Repository
from fangcun.version import __version__

RECORD = "download.json"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Entry:
    """A file that came and was checked."""

    size_bytes: int
    sha256: str
    git_sha1: str
    """Where the hub told it; else empty."""
    checked_by: str
    """sha256, git-sha1 or size: what the hub told of its content."""
    mtime_ns: int
    """Of the file as it was left; a file with this time and size is not read again."""

    @property
    def digests(self) -> Digests:
        """What the content was."""
        return Digests(self.size_bytes, self.sha256, self.git_sha1)


@dataclass
class Record:
    """The content of `download.json`."""

    source: str
    endpoint: str
    kind: str
    name: str
    revision: str
    """Branch, tag or commit that was asked for."""
    commit: str | None
    """The commit that it was, where the hub tells."""
    include: list[str]
    files: dict[str, Entry] = field(default_factory=dict)
    complete: bool = False
    format_version: int = FORMAT_VERSION
    program: str = f"fangcun {__version__}"

    def is_of(self, repository: Repository) -> bool:
        """Whether it tells of this repository: a mirror has those of Hugging Face, ModelScope has its own."""
        told = (self.source == "modelscope", self.kind, self.name)
        return told == (repository.is_modelscope, repository.kind, repository.name)

    def write(self, folder: Path) -> None:
        """Replace the file in one step."""
        content = asdict(self)
        content["files"] = {path: content["files"][path] for path in sorted(self.files)}
        write_text_atomic(folder / RECORD, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def read_record(folder: Path) -> Record | None:
    """The record of a folder, or None where there is none. Raises FangcunError for one that cannot be read."""
    path = folder / RECORD
    if not path.is_file():
        return None
    remedy = "Remove it and the files beside it, or choose another folder with --out."
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        if content["format_version"] != FORMAT_VERSION:
            raise FangcunError(
                f"{path} has format version {content['format_version']}, this program reads {FORMAT_VERSION}. Use the version it was written with: {content.get('program')}."
            )
        for name in content["files"]:
            check_path(name)
        files = {name: Entry(**entry) for name, entry in content.pop("files").items()}
        return Record(files=files, **content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FangcunError(f"{path} is no record of a download ({error}). {remedy}") from error


def entry_of(path: Path, digests: Digests, checked_by: str) -> Entry:
    """The entry of a file that was checked and lies at `path`."""
    mtime_ns = path.stat().st_mtime_ns
    return Entry(digests.size_bytes, digests.sha256, digests.git_sha1, checked_by, mtime_ns)


def whole_entry(path: Path, file: RemoteFile, entries: Iterable[Entry | None], *, verify: bool) -> Entry | None:
    """The entry of `path` when it holds what the listing says, else None.

    It is read only when no entry vouches for it by time and size, or with `verify`.
    """
    if not path.is_file() or path.is_symlink():
        return None
    status = path.stat()
    if status.st_size != file.size_bytes:
        return None
    for entry in entries:
        if entry is None or verify:
            continue
        if (entry.size_bytes, entry.mtime_ns) == (status.st_size, status.st_mtime_ns) and agrees(entry.digests, file):
            return replace(entry, checked_by=file.checked_by)
    digests = file_digests(path, git=file.needs_git_sha1)
    return entry_of(path, digests, file.checked_by) if agrees(digests, file) else None


def is_unchanged(path: Path, entry: Entry, *, verify: bool) -> bool:
    """Whether a file is still what its entry says."""
    if not path.is_file() or path.stat().st_size != entry.size_bytes:
        return False
    if path.stat().st_mtime_ns == entry.mtime_ns and not verify:
        return True
    return file_digests(path, git=bool(entry.git_sha1)) == entry.digests
