"""Folders that are whole or not there.

Every stage hands its result on as a folder with a manifest: kind, settings, counts, checksums, parents.
Writers are atomic and alone (a lock a run folder); readers refuse what they do not know.
"""

from fangcun.artifacts.changes import describe_changes
from fangcun.artifacts.checkpoints import checkpoint_name, checkpoint_step, find_weights, list_checkpoints
from fangcun.artifacts.folder import (
    MANIFEST,
    Manifest,
    check_replaceable,
    describe_inputs,
    file_sha256,
    fingerprint,
    parse_manifest,
    read_manifest,
    write_artifact,
    write_text_atomic,
)
from fangcun.artifacts.lock import RunLock
from fangcun.artifacts.stale import remove_stale

__all__ = [
    "MANIFEST",
    "Manifest",
    "RunLock",
    "check_replaceable",
    "checkpoint_name",
    "checkpoint_step",
    "describe_changes",
    "describe_inputs",
    "file_sha256",
    "find_weights",
    "fingerprint",
    "list_checkpoints",
    "parse_manifest",
    "read_manifest",
    "remove_stale",
    "write_artifact",
    "write_text_atomic",
]
