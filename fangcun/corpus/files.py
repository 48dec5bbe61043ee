"""Which files a corpus is made of: files, folders and globs, in a stable order; what is left out is named."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path

from fangcun.errors import FangcunError

SUFFIXES = (".txt", ".md", ".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow")
COMPRESSIONS = (".gz", ".zst", ".xz", ".bz2")
_PACKED_INSIDE = (".parquet", ".arrow")
# The descriptions of a dataset that lie beside its data (`fangcun download` writes one), and what `datasets` caches there.
_NOT_TEXT = re.compile(
    r"readme|licen[sc]e|dataset_(infos?|dict)\.json$|download\.json$|(cache|tmp|indices)[-_.0-9a-z]*\.arrow$",
    re.IGNORECASE,
)
_DATASET_STATE = "state.json"
# WikiExtractor names its files so, without a suffix, in folders AA, AB …
_WIKI = re.compile(r"wiki_\d+$")
STATE_FILE = "state.json"
"""Of the folder in which a corpus is being made."""
# What stands in a run folder, what stood there before, and what is being made.
_STAGES = {"checkpoints"} | {
    f"{stage}{state}" for stage in ("corpus", "tokenizer", "tokens") for state in ("", ".previous", ".work")
}
_DIGITS = re.compile(r"(\d+)")


def suffixes(path: Path) -> tuple[str, str]:
    """Format and compression of a file by its name: `("jsonl", "zst")` for x.jsonl.zst, `("txt", "")` for x.txt.

    `("wiki", "")` for wiki_00 as WikiExtractor writes it; `("", "")` when unknown.
    """
    stem, suffix = os.path.splitext(path.name)  # noqa: PTH122
    suffix = suffix.lower()
    compression = suffix[1:] if suffix in COMPRESSIONS else ""
    if compression:
        stem, suffix = os.path.splitext(stem)  # noqa: PTH122
        suffix = suffix.lower()
    if not suffix and _WIKI.match(stem):
        return "wiki", compression
    if suffix not in SUFFIXES or (compression and suffix in _PACKED_INSIDE):
        return "", ""
    return suffix[1:], compression


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Sort key in which part-2 comes before part-10."""
    return [
        (0, int(piece), "") if piece.isdigit() and piece.isascii() else (1, 0, piece)
        for piece in _DIGITS.split(path.as_posix())
    ]


def list_files(paths: list[str]) -> tuple[list[Path], list[Path]]:
    """The files to read, and the ones left out.

    A folder is walked (links followed, each file once), in natural order of names; README*, LICENSE*, hidden files,
    unknown suffixes and run folders are left out. A file named outright is read whatever its name, if its suffix is
    known. Raises FangcunError for a path that is not there, cannot be read, or leaves nothing to read.
    """
    # By real path, so that a file is read once however it is reached.
    used: dict[str, Path] = {}
    skipped: dict[str, Path] = {}
    for given in paths:
        path = Path(given).expanduser()
        try:
            is_folder, is_there = path.is_dir(), path.exists()
        except PermissionError as error:
            raise FangcunError(
                f"{given} cannot be read: permission denied. Change the rights of the folders it lies in."
            ) from error
        if is_folder:
            _walk(path, used, skipped)
        elif is_there:
            if not suffixes(path)[0]:
                raise FangcunError(
                    f"{given} has no suffix that is known. Expected one of {' '.join(SUFFIXES)}, plain or packed as {' '.join(COMPRESSIONS)} (.parquet and .arrow plain)."
                )
            used.setdefault(os.path.realpath(path), path)
        elif glob.has_magic(given):
            # Path.glob takes no absolute patterns before Python 3.13.
            matches = glob.glob(str(path), recursive=True)  # noqa: PTH207
            found = sorted(map(Path, matches), key=_natural)
            if not found:
                raise FangcunError(
                    f"The pattern {given} matches no file. Check it, or quote it so that the shell leaves it alone."
                )
            for match in found:
                if match.is_dir():
                    # `**` names every folder on the way; their files are matched on their own.
                    if "**" not in given:
                        _walk(match, used, skipped)
                else:
                    _sort_in(match, os.path.realpath(match), used, skipped)
        else:
            raise FangcunError(
                f"{given} does not exist. Expected a text file, a folder or a pattern such as 'books/*.txt'."
            )
    for file in used.values():
        if not os.access(file, os.R_OK):
            raise FangcunError(f"{file} cannot be read: permission denied. Change its rights: chmod u+r {file}")
    if not used:
        named = ", ".join(str(path) for path in list(skipped.values())[:5])
        left_out = f" Left out: {named}{' …' if len(skipped) > 5 else ''}." if skipped else ""
        raise FangcunError(
            f"{', '.join(map(str, paths))} holds no text file. Expected {' '.join(SUFFIXES)}, plain or packed as {' '.join(COMPRESSIONS)}.{left_out}"
        )
    return list(used.values()), sorted((path for key, path in skipped.items() if key not in used), key=_natural)


def _sort_in(path: Path, real: str, used: dict[str, Path], skipped: dict[str, Path]) -> None:
    left_out = path.name.startswith(".") or _NOT_TEXT.match(path.name) or not suffixes(path)[0]
    (skipped if left_out else used).setdefault(real, path)


def _is_ours(folder: str, folders: list[str], files: list[str]) -> bool:
    """Whether Fangcun wrote this folder: a run, an artefact, or one of these that is being written."""
    run = "writer.lock" in files or ("recipe.yaml" in files and not _STAGES.isdisjoint(folders))
    work = Path(folder).name.endswith(".work") and STATE_FILE in files
    return run or work or {"manifest.json", "drops.json"} <= set(files) or ".tmp-" in Path(folder).name


def _walk(folder: Path, used: dict[str, Path], skipped: dict[str, Path]) -> None:
    def refuse(error: OSError) -> None:
        raise FangcunError(
            f"{error.filename} cannot be read: {error.strerror}. Change its rights, or name the files to read."
        )

    visited: set[str] = set()
    files: list[tuple[Path, str]] = []
    for name, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        real = os.path.realpath(name)
        # A run folder under the text folder would feed a model's own output back to it.
        if real in visited or _is_ours(name, folders, names):
            if real not in visited:
                skipped.setdefault(real, Path(name))
            folders.clear()
            continue
        visited.add(real)
        for hidden in [sub for sub in folders if sub.startswith(".")]:
            folders.remove(hidden)
            skipped.setdefault(os.path.realpath(Path(name) / hidden), Path(name) / hidden)
        if _DATASET_STATE in names and any(file.endswith(".arrow") for file in names):
            names.remove(_DATASET_STATE)
            skipped.setdefault(str(Path(real) / _DATASET_STATE), Path(name) / _DATASET_STATE)
        for file in names:
            path = Path(name) / file
            # Resolving each of very many files is slow, and only links need it.
            files.append((path, os.path.realpath(path) if path.is_symlink() else f"{real}{os.sep}{file}"))
    for path, real in sorted(files, key=lambda entry: _natural(entry[0])):
        _sort_in(path, real, used, skipped)


def short_names(files: list[Path]) -> dict[Path, str]:
    """A name for each file that does not depend on where the corpus lies: the path below the deepest common folder."""
    absolute = [str(file.absolute()) for file in files]
    common = os.path.commonpath({os.path.dirname(path) for path in absolute}) if absolute else ""  # noqa: PTH120
    return {
        file: path[len(common) :].lstrip(os.sep).replace(os.sep, "/")
        for file, path in zip(files, absolute, strict=True)
    }
