"""A folder that is whole or not there.

An artefact (corpus, tokenizer, tokens, checkpoint) is written into `NAME.tmp-PID`, synced, described by a
`manifest.json`, and renamed into place. Only an artefact of the same kind, or an empty folder, is ever replaced, and
within `keep_replaced` it stays beside the new one as `NAME.previous`. A process that dies half way leaves only a
temporary folder, which `remove_stale` (artifacts/stale.py) clears at the next start.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fangcun.errors import FangcunError
from fangcun.version import __version__

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
_keeping: ContextVar[bool] = ContextVar("keeping", default=False)


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
    mode = "r+b" if os.name == "nt" else "rb"  # Windows flushes only what is open for writing
    with open(path, mode) as file, contextlib.suppress(OSError):
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


def check_replaceable(path: Path, kind: str) -> None:
    """Raise FangcunError unless `path` is free, an empty folder, or an artefact of `kind` (its manifest may be torn)."""
    path = Path(path)
    if not os.path.lexists(path):
        return
    if path.is_dir() and (_is_manifest_of(path / MANIFEST, kind) or not any(path.iterdir())):
        return
    what = "is not empty and no" if path.is_dir() else "is a file and no"
    raise FangcunError(f"{path} {what} {kind} of Fangcun's: nothing was changed; choose another folder with --out.")


def is_artifact(path: Path, kind: str) -> bool:
    """Whether the manifest in a folder says `kind`."""
    return _is_manifest_of(path / MANIFEST, kind)


def _is_manifest_of(file: Path, kind: str) -> bool:
    if not file.is_file():
        return False
    raw = file.read_bytes()
    try:
        content = json.loads(raw)
    except ValueError:
        # Torn: the beginning is ours as far as it goes. A crash may also leave an empty file, or zeros.
        begin = _manifest_text(Manifest(kind)).encode().partition(b",")[0]
        return not raw.strip(b"\0") or raw[: len(begin)] == begin[: len(raw)]
    return isinstance(content, dict) and content.get("kind") == kind and "format_version" in content


def _manifest_text(manifest: Manifest) -> str:
    return json.dumps(vars(manifest), ensure_ascii=False, indent=1, default=str)


def discard(path: Path) -> None:
    """Delete a folder, a file or a link (never what it points to), as far as that goes."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def previous_of(path: Path) -> Path:
    """Where the artefact is kept that stood at `path` before: NAME.previous."""
    return Path(path).with_name(f"{Path(path).name}.previous")


@contextlib.contextmanager
def keep_replaced() -> Iterator[None]:
    """Within the block `write_artifact` keeps what it replaces as NAME.previous, one generation of it.

    Only what was made from something else is kept: of an artefact with the fingerprint of the new one nothing is lost.
    """
    token = _keeping.set(True)
    try:
        yield
    finally:
        _keeping.reset(token)


@contextlib.contextmanager
def write_artifact(path: Path, manifest: Manifest) -> Iterator[Path]:
    """Yield a temporary folder to fill; on a clean exit hash, sync and rename it to `path`.

    An artefact of the same kind that already stands at `path` is replaced (see `keep_replaced`). When the body raises,
    nothing at `path` changes. The caller may change `manifest` inside the body. Raises FangcunError when something else
    stands at `path`, before the body runs.
    """
    path = Path(path)
    _check_places(path, manifest.kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    discard(temporary)
    temporary.mkdir()
    try:
        yield temporary
        manifest.files = {}
        for file in sorted(p for p in temporary.rglob("*") if p.is_file()):
            sync_file(file)
            entry = {"size_bytes": file.stat().st_size, "sha256": file_sha256(file)}
            manifest.files[file.relative_to(temporary).as_posix()] = entry
        write_text_atomic(temporary / MANIFEST, _manifest_text(manifest))
        for folder in (temporary, *(p for p in temporary.rglob("*") if p.is_dir())):
            sync_folder(folder)
        _check_places(path, manifest.kind)  # hours may have passed
        replace_artifact(temporary, path, keep=_keeping.get())
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _check_places(path: Path, kind: str) -> None:
    check_replaceable(path, kind)
    if _keeping.get():
        check_replaceable(previous_of(path), kind)


def replace_artifact(temporary: Path, path: Path, *, keep: bool) -> None:
    """Rename `temporary` to `path`. What stood there is put back when that fails; when it went well it is kept as
    NAME.previous (`keep`) or deleted.

    After a kill between the renames `remove_stale` does what was left to do.
    """
    aside = path.with_name(f"{path.name}.tmp-old-{os.getpid()}")
    try:
        if os.path.lexists(path):
            discard(aside)
            path.rename(aside)
        temporary.rename(path)
    except BaseException:
        if os.path.lexists(aside) and not os.path.lexists(path):
            aside.rename(path)
        raise
    sync_folder(path.parent)
    if keep:
        with contextlib.suppress(OSError):  # the new one stands: the next start tries again
            keep_aside(aside, path)
    else:
        discard(aside)


def put_back(path: Path) -> None:
    """Exchange the artefact at `path` and the one that is kept as NAME.previous. Where there is none, it only moves."""
    replace_artifact(previous_of(path), path, keep=True)


def keep_aside(aside: Path, path: Path) -> bool:
    """Give what was moved `aside` from `path` the name NAME.previous, in place of an older one; whether it has it now.

    It is deleted instead where nothing can be lost: it is no whole artefact, or has the fingerprint of the one at `path`.
    """
    kind, made_from = _identity(aside)
    if not made_from or _identity(path) == (kind, made_from):
        discard(aside)
        return False
    previous = previous_of(path)
    # A name that is cleared at the next start, whenever this ends: `aside` alone is never deleted by that.
    doomed = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    if os.path.lexists(previous):
        check_replaceable(previous, kind)
        discard(doomed)
        previous.rename(doomed)
    aside.rename(previous)
    sync_folder(path.parent)
    discard(doomed)
    return True


def _identity(folder: Path) -> tuple[str, str]:
    """Kind and fingerprint by the manifest; ("", "") for what has none that can be read."""
    try:
        raw = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return str(raw["kind"]), str(raw["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", ""


def read_manifest(path: Path, kind: str, *, verify: bool = False, without: str | None = None) -> Manifest:
    """Open an artefact: refuse another kind, an unknown version, missing or resized files.

    With `verify` the sha256 of every file is checked too. Files below the sub-folder `without` may be absent. Raises
    FangcunError.
    """
    path = Path(path)
    remedy = "Use another checkpoint." if kind == "checkpoint" else f"Remove {path} to have it made anew."
    file = path / MANIFEST
    if not file.is_file():
        raise FangcunError(f"{path} is not a {kind} folder: it has no {MANIFEST}.")
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise FangcunError(f"{file} cannot be read ({error}). {remedy}") from error
    manifest = parse_manifest(raw, str(file), kind, remedy=remedy)
    for name, entry in manifest.files.items():
        part = path / name
        if not part.is_file():
            if without is not None and name.startswith(f"{without}/"):
                continue
            raise FangcunError(f"{part} is missing, so the {kind} is damaged. {remedy}")
        if (size_bytes := part.stat().st_size) != entry["size_bytes"]:
            raise FangcunError(
                f"{part} has {size_bytes:,} bytes, expected {entry['size_bytes']:,}: the {kind} is damaged. {remedy}"
            )
        if verify and file_sha256(part) != entry["sha256"]:
            raise FangcunError(f"{part} does not match its sha256: the {kind} is damaged. {remedy}")
    return manifest


def parse_manifest(raw: bytes, place: str, kind: str, *, remedy: str = "") -> Manifest:
    """The manifest in the content of a manifest.json at `place`. Raises FangcunError for another kind or an unknown version."""
    folder = place.removesuffix(f"/{MANIFEST}").removesuffix(f"{os.sep}{MANIFEST}")
    try:
        content = json.loads(raw.decode("utf-8"))
        version, found = content["format_version"], content["kind"]
    except (ValueError, KeyError, TypeError) as error:
        raise FangcunError(f"{place} cannot be read ({error}). {remedy}".rstrip()) from error
    if found != kind:
        raise FangcunError(f"{folder} holds a {found}, expected a {kind}.")
    if version != FORMAT_VERSION:
        raise FangcunError(
            f"{folder} has format version {version}, this program reads {FORMAT_VERSION}. Use the version it was written with: {content.get('program')}."
        )
    known = set(Manifest.__dataclass_fields__)
    return Manifest(**{key: value for key, value in content.items() if key in known})


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
