"""What a hub says a repository holds: files with sizes and checksums. Names that could leave the folder are refused."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from fangcun.errors import FangcunError

_DRIVE = re.compile(r".:", re.DOTALL)
"""Windows, as Python reads its paths, takes any one character for a drive."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SHA1, _SHA256 = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{64}")
_WINDOWS_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)


@dataclass(frozen=True)
class RemoteFile:
    """A file of the repository, and what its content must be."""

    path: str
    size_bytes: int
    url: str
    sha256: str | None = None
    git_sha1: str | None = None
    """Git's name of the content: sha1 over `blob SIZE`, a zero byte and the content."""

    @property
    def checked_by(self) -> str:
        """What its content is checked against, strongest first: sha256, git-sha1, size."""
        return "sha256" if self.sha256 else "git-sha1" if self.git_sha1 else "size"

    @property
    def needs_git_sha1(self) -> bool:
        """Whether git's sha1 is the strongest."""
        return self.checked_by == "git-sha1"


@dataclass(frozen=True)
class Listing:
    """All files of a repository at one revision, by path."""

    revision: str
    """Branch, tag or commit that was asked for."""
    commit: str | None
    """The commit that it was, where the hub tells."""
    files: list[RemoteFile]


def remote_file(path: Any, size_bytes: Any, url: str, *, sha256: Any = None, git_sha1: Any = None) -> RemoteFile:
    """A checked entry of a listing. Raises FangcunError for a name or a size that cannot be meant."""
    check_path(path)
    if not isinstance(size_bytes, int) or isinstance(size_bytes, bool) or size_bytes < 0:
        raise FangcunError(
            f"The listing gives {path!r} the size {size_bytes!r}, expected a number of bytes. Try another --source."
        )
    return RemoteFile(path, size_bytes, url, _digest(sha256, _SHA256), _digest(git_sha1, _SHA1))


def _digest(value: Any, pattern: re.Pattern[str]) -> str | None:
    text = value.lower() if isinstance(value, str) else ""
    return text if pattern.fullmatch(text) else None


def check_path(path: Any) -> None:
    """Refuse a file name that could point outside the folder on any system. Raises FangcunError."""
    wrong = _fault(path) if isinstance(path, str) else "is no text"
    if wrong:
        raise FangcunError(
            f"The listing names a file {path!r}, which {wrong}: refused, and nothing was fetched. Do not use this repository; tell its owner or the hub."
        )


def _fault(path: str) -> str:
    parts = path.split("/")
    if not path or path.startswith(("/", "\\", "~")):
        return "is no path inside a folder"
    if _DRIVE.match(path):
        return "begins with a drive letter"
    if "\\" in path or _CONTROL.search(path):
        return "has a backslash or a control character"
    if any(part in ("", ".", "..") for part in parts):
        return "has an empty part, '.' or '..'"
    if os.name == "nt" and any(":" in p or p[-1] in ". " or _WINDOWS_DEVICE.match(p) for p in parts):
        return "Windows cannot have"
    return ""


def by_path(files: list[RemoteFile]) -> list[RemoteFile]:
    """Sorted, each path once. Raises FangcunError for names that this system cannot have beside each other."""
    found = {file.path: file for file in files}
    for path in found:
        for parent in PurePosixPath(path).parents:
            if str(parent) in found:
                raise FangcunError(f"The listing names {str(parent)!r} both a file and a folder. Try another --source.")
    if sys.platform in ("win32", "darwin"):
        folded = {path.casefold(): path for path in found}
        twice = next((path for path in found if folded[path.casefold()] != path), None)
        if twice:
            raise FangcunError(
                f"The listing has {twice!r} and {folded[twice.casefold()]!r}, one name on this system. Fetch it on another one."
            )
    return [found[path] for path in sorted(found)]
