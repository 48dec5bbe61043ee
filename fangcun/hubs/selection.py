"""Which files of a listing are fetched: all, or those that --include names; what can run code only when named outright."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from fangcun.errors import ConfigError, did_you_mean
from fangcun.hubs.listing import Listing, RemoteFile

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
"""Suffixes under which Python's pickles travel: opening one runs what it says."""
PROGRAMS = (".py",)
OWN_NAMES = ("download.json", "writer.lock", ".part")
"""What lies in a download's folder beside the files, or did while they came."""


@dataclass(frozen=True)
class Selection:
    """The files to fetch, and those left out with the reason."""

    files: list[RemoteFile]
    left_out: dict[str, str]


def select(listing: Listing, include: Sequence[str]) -> Selection:
    """Apply the patterns of --include; without one every file is meant.

    `*` also crosses folders, a pattern without a slash is tried on the file's own name too, and one that ends in a slash
    means a folder. Raises ConfigError for a pattern that matches nothing.
    """
    for pattern in include:
        if not any(matches(file.path, pattern) for file in listing.files):
            paths = [file.path for file in listing.files]
            shown = ", ".join(paths[:8]) + (" …" if len(paths) > 8 else "")
            raise ConfigError(
                f"--include: '{pattern}' matches no file.{did_you_mean(pattern, paths)} There are {shown or 'none'}."
            )
    files, left_out = [], {}
    for file in listing.files:
        if include and not any(matches(file.path, pattern) for pattern in include):
            continue
        reason = _reason(file.path, include)
        if reason:
            left_out[file.path] = reason
        else:
            files.append(file)
    return Selection(files, left_out)


def matches(path: str, pattern: str) -> bool:
    """Whether a pattern of --include means the file at `path`."""
    if pattern.endswith("/"):
        return path.startswith(pattern)
    name = PurePosixPath(path).name
    return (
        path == pattern
        or fnmatch.fnmatchcase(path, pattern)
        or ("/" not in pattern and fnmatch.fnmatchcase(name, pattern))
    )


def _reason(path: str, include: Sequence[str]) -> str:
    first, suffix = PurePosixPath(path).parts[0].casefold(), PurePosixPath(path).suffix.lower()
    if first in OWN_NAMES:
        return "a name that this folder uses itself"
    if first in (".gitattributes", ".gitignore"):
        return "git's own"
    # `*` or `data/*` is not a word about pickles; `*.bin` and `pytorch_model.bin` are.
    outright = any(pattern.lower().endswith(suffix) and matches(path, pattern) for pattern in include)
    if suffix in PICKLES and not outright:
        return "may be a pickle, which runs code when it is opened (name it with --include to have it)"
    if suffix in PROGRAMS and not outright:
        return "a program (name it with --include to have it)"
    return ""
