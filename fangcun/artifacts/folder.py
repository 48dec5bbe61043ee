"""A folder that is whole or not there.

An artefact (corpus, tokenizer, tokens, checkpoint) is written into `NAME.tmp-PID`, synced, described by a
`manifest.json`, and renamed into place. A process that dies half way leaves only a temporary folder, which
`remove_stale` clears at the next start.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fangcun.errors import FangcunError
from fangcun.version import __version__

FORMAT_VERSION = 1
MANIFEST = "manifest.json"


@dataclass
class Manifest:
    """What an artefact is: its kind, settings, counts, files and the fingerprints of what it was made from."""

    kind: str
    fingerprint: str = ""
    """sha256 over what the artefact was made from; equal fingerprints mean equal content."""
    settings: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    parents: dict[str, str] = field(default_factory=dict)
    """Name of a parent artefact -> its fingerprint."""
    inputs: list[dict[str, Any]] = field(default_factory=list)
    """Files from outside that were read: path, size_bytes, mtime_ns, sha256."""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Relative path -> {"size_bytes", "sha256"}; filled in when the folder is closed."""
    format_version: int = FORMAT_VERSION
    program: str = f"fangcun {__version__}"


def fingerprint(*parts: Any) -> str:
    """sha256 (hex) over the canonical JSON of `parts`."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 (hex) of a file, read in constant memory."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sync_file(path: Path) -> None:
    """Flush a file to the disk itself."""
    with open(path, "rb") as file, contextlib.suppress(OSError):
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Flush a folder's entries, where the system can (Windows cannot)."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def write_text_atomic(path: Path, text: str) -> None:
    """Replace a small text file in one step."""
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    with open(temporary, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


@contextlib.contextmanager
def write_artifact(path: Path, manifest: Manifest) -> Iterator[Path]:
    """Yield a temporary folder to fill; on a clean exit hash, sync and rename it to `path`.

    A folder that already stands at `path` is replaced. When the body raises, nothing at `path` changes. The caller
    may change `manifest` inside the body.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        manifest.files = {}
        for file in sorted(p for p in temporary.rglob("*") if p.is_file()):
            sync_file(file)
            entry = {"size_bytes": file.stat().st_size, "sha256": file_sha256(file)}
            manifest.files[file.relative_to(temporary).as_posix()] = entry
        write_text_atomic(temporary / MANIFEST, json.dumps(vars(manifest), ensure_ascii=False, indent=1, default=str))
        for folder in (temporary, *(p for p in temporary.rglob("*") if p.is_dir())):
            sync_folder(folder)
        replaced = None
        if path.exists():
            replaced = path.with_name(f"{path.name}.tmp-old-{os.getpid()}")
            shutil.rmtree(replaced, ignore_errors=True)
            path.rename(replaced)
        temporary.rename(path)
        sync_folder(path.parent)
        if replaced is not None:
            shutil.rmtree(replaced, ignore_errors=True)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def read_manifest(path: Path, kind: str, *, verify: bool = False) -> Manifest:
    """Open an artefact: refuse another kind, an unknown version, missing or resized files.

    With `verify` the sha256 of every file is checked too. Raises FangcunError.
    """
    path = Path(path)
    file = path / MANIFEST
    if not file.is_file():
        raise FangcunError(f"{path} is not a {kind} folder: it has no {MANIFEST}.")
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        version, found = raw["format_version"], raw["kind"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise FangcunError(
            f"{file} cannot be read ({error}). Remove the folder {path} to have it made anew."
        ) from error
    if found != kind:
        raise FangcunError(f"{path} holds a {found}, expected a {kind}.")
    if version != FORMAT_VERSION:
        raise FangcunError(
            f"{path} has format version {version}, this program reads {FORMAT_VERSION}. Use the version it was written with: {raw.get('program')}."
        )
    known = set(Manifest.__dataclass_fields__)
    manifest = Manifest(**{key: value for key, value in raw.items() if key in known})
    for name, entry in manifest.files.items():
        part = path / name
        if not part.is_file():
            raise FangcunError(f"{part} is missing, so the {kind} is damaged. Remove {path} to have it made anew.")
        if (size_bytes := part.stat().st_size) != entry["size_bytes"]:
            raise FangcunError(
                f"{part} has {size_bytes:,} bytes, expected {entry['size_bytes']:,}: the {kind} is damaged. Remove {path} to have it made anew."
            )
        if verify and file_sha256(part) != entry["sha256"]:
            raise FangcunError(
                f"{part} does not match its sha256: the {kind} is damaged. Remove {path} to have it made anew."
            )
    return manifest


def describe_inputs(paths: list[Path], known: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    """Path, size, time and sha256 of input files. A file whose path, size and time stand in `known` is not read again."""
    cache = {(k["path"], k["size_bytes"], k["mtime_ns"]): k["sha256"] for k in known or []}
    result = []
    for path in paths:
        stat = path.stat()
        key = (str(path), stat.st_size, stat.st_mtime_ns)
        result.append(
            {"path": key[0], "size_bytes": key[1], "mtime_ns": key[2], "sha256": cache.get(key) or file_sha256(path)}
        )
    return result


def remove_stale(folder: Path) -> list[Path]:
    """Delete temporary folders and files that dead writers left in `folder` and its sub-folders. Call with the lock held."""
    removed = []
    for path in sorted(folder.rglob("*.tmp-*")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        removed.append(path)
    return removed
