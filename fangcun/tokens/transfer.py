"""Whole artefacts to a URL and back.

Up: every file, and the manifest last, so that the artefact is whole at the URL or not there. `upload.json` beside it
lists what has arrived; an upload that was cut short goes on from it. Nothing at the URL is deleted, and no other
artefact's file is ever replaced.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fangcun.artifacts import MANIFEST, Manifest, fingerprint, parse_manifest, read_manifest, write_artifact
from fangcun.errors import FangcunError
from fangcun.tokens.store import RemoteFolder

LEDGER = "upload.json"
Progress = Callable[[int, int], None]
"""Called with (done, total) bytes."""


@dataclass
class Uploaded:
    """What an upload did."""

    sent_files: int = 0
    sent_bytes: int = 0
    kept_files: int = 0
    """Files that were there already."""


def upload_artifact(folder: Path, kind: str, to: RemoteFolder, *, progress: Progress | None = None) -> Uploaded:
    """Copy an artefact folder to `to`. What is there with the same size and checksum is not sent again.

    Raises FangcunError, also where something else is there, before anything is changed at that name.
    """
    manifest = read_manifest(Path(folder), kind)
    content = fingerprint(kind, manifest.fingerprint, manifest.files)
    finished, arrived = _finished(to, manifest), _read_ledger(to, content)
    missing = _missing(to, manifest, arrived, finished=finished)
    arrived = {name: entry["sha256"] for name, entry in manifest.files.items() if name not in missing}
    done, total = Uploaded(kept_files=len(arrived)), sum(entry["size_bytes"] for entry in manifest.files.values())
    seen_bytes = sum(manifest.files[name]["size_bytes"] for name in arrived)
    if missing:
        _write_ledger(to, content, arrived)
    for name in missing:
        entry = manifest.files[name]
        to.send(name, Path(folder) / name)
        if (size_bytes := to.size_bytes(name)) != entry["size_bytes"]:
            raise FangcunError(
                f"{to}/{name} has {size_bytes or 0:,} bytes after the upload, expected {entry['size_bytes']:,}. Run the same command again."
            )
        arrived[name] = entry["sha256"]
        _write_ledger(to, content, arrived)
        done.sent_files, done.sent_bytes = done.sent_files + 1, done.sent_bytes + entry["size_bytes"]
        seen_bytes += entry["size_bytes"]
        if progress is not None:
            progress(seen_bytes, total)
    if not finished:
        to.write(MANIFEST, (Path(folder) / MANIFEST).read_bytes())
    return done


def _missing(to: RemoteFolder, manifest: Manifest, arrived: dict[str, str] | None, *, finished: bool) -> list[str]:
    """Files that are yet to be sent. Raises FangcunError when one of that name is there that no upload of this began."""
    missing = []
    for name, entry in sorted(manifest.files.items()):
        size_bytes = to.size_bytes(name)
        known = finished or (arrived or {}).get(name) == entry["sha256"]
        if size_bytes == entry["size_bytes"] and (known or to.sha256(name, entry["size_bytes"]) == entry["sha256"]):
            continue
        if size_bytes is not None and not finished and arrived is None:
            raise FangcunError(
                f"{to}/{name} is there and is no part of this {manifest.kind}: nothing was changed. Give another URL with --tokens.upload."
            )
        missing.append(name)
    return missing


def _finished(to: RemoteFolder, manifest: Manifest) -> bool:
    """Whether the manifest at the URL is this one. Raises FangcunError when it is another's."""
    raw = to.read_if_there(MANIFEST)
    if raw is None:
        return False
    try:
        found = parse_manifest(raw, f"{to}/{MANIFEST}", manifest.kind)
    except FangcunError as error:
        if _read_ledger(to, fingerprint(manifest.kind, manifest.fingerprint, manifest.files)) is not None:
            return False  # its last piece was cut short
        raise FangcunError(f"{error} Nothing was changed. Give another URL with --tokens.upload.") from error
    if (found.fingerprint, found.files) != (manifest.fingerprint, manifest.files):
        raise FangcunError(
            f"{to} holds another {manifest.kind}: nothing was changed. Give another URL with --tokens.upload."
        )
    return True


def _read_ledger(to: RemoteFolder, content: str) -> dict[str, str] | None:
    """sha256 of the files of this content that have arrived, by name; None where no upload of it was begun."""
    raw = to.read_if_there(LEDGER)
    try:
        ledger: Any = json.loads(raw) if raw else None
        if ledger and ledger["content"] == content:
            return {str(name): str(sha256) for name, sha256 in ledger["arrived"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        pass  # torn: what has arrived is compared, or sent again
    return None


def _write_ledger(to: RemoteFolder, content: str, arrived: dict[str, str]) -> None:
    to.write(LEDGER, json.dumps({"content": content, "arrived": arrived}, indent=1).encode())


def fetch_artifact(source: RemoteFolder, kind: str, out: Path) -> Manifest:
    """Copy a small artefact (a tokenizer) from a URL to `out`, checked by its sha256. Raises FangcunError."""
    found = remote_manifest(source, kind)
    if found is None:
        raise FangcunError(f"{source} holds no {kind}: it has no {MANIFEST}.")
    expected = dict(found.files)
    with write_artifact(Path(out), found) as folder:
        for name, entry in expected.items():
            if not re.fullmatch(r"\w[\w.-]*", name):
                raise FangcunError(f"{source}/{MANIFEST} lists {json.dumps(name)}, which is no file name of a {kind}.")
            content = source.read(name)
            if hashlib.sha256(content).hexdigest() != entry["sha256"]:
                raise FangcunError(
                    f"{source}/{name} does not match the sha256 in its {MANIFEST}: the {kind} there is damaged."
                )
            (folder / name).write_bytes(content)
    return found


def remote_manifest(source: RemoteFolder, kind: str) -> Manifest | None:
    """The manifest of an artefact at a URL, None where there is none. Raises FangcunError for one of another kind."""
    raw = source.read_if_there(MANIFEST)
    return None if raw is None else parse_manifest(raw, f"{source}/{MANIFEST}", kind)
