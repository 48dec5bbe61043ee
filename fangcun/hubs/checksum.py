"""Checksums of a file while it comes or as it lies: sha256, and git's sha1 for files that a hub keeps in git itself."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from fangcun.hubs.listing import RemoteFile

BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Digests:
    """What a content is."""

    size_bytes: int
    sha256: str
    git_sha1: str = ""
    """Empty where nobody asked for it."""


class Hasher:
    """Takes a content in pieces. `size_bytes` is the whole length: git hashes it before the content."""

    def __init__(self, size_bytes: int, *, git: bool) -> None:
        """git: take git's sha1 too."""
        self._sha256 = hashlib.sha256()
        self._sha1 = hashlib.sha1(b"blob %d\0" % size_bytes, usedforsecurity=False) if git else None
        self._size_bytes = 0

    def update(self, block: bytes) -> None:
        """The next piece."""
        self._sha256.update(block)
        if self._sha1 is not None:
            self._sha1.update(block)
        self._size_bytes += len(block)

    def update_from(self, path: Path) -> None:
        """All of a file, in constant memory."""
        with open(path, "rb") as file:
            while block := file.read(BLOCK_BYTES):
                self.update(block)

    def result(self) -> Digests:
        """Digests of what was taken."""
        git_sha1 = self._sha1.hexdigest() if self._sha1 is not None else ""
        return Digests(self._size_bytes, self._sha256.hexdigest(), git_sha1)


def file_digests(path: Path, *, git: bool) -> Digests:
    """Digests of a file, read in constant memory."""
    hasher = Hasher(path.stat().st_size, git=git)
    hasher.update_from(path)
    return hasher.result()


def agrees(found: Digests, file: RemoteFile) -> bool:
    """Whether a content is that of the listing, by the strongest thing that it tells."""
    if found.size_bytes != file.size_bytes:
        return False
    if file.sha256:
        return found.sha256 == file.sha256
    return not file.git_sha1 or found.git_sha1 == file.git_sha1
