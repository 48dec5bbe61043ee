"""Folders that are whole or not there.

Every stage hands its result on as a folder with a manifest: kind, settings, counts, checksums, parents.
Writers are atomic and alone (a lock a run folder); readers refuse what they do not know.
"""

from fangcun.artifacts.changes import describe_changes
from fangcun.artifacts.checkpoints import (
    checkpoint_name,
    checkpoint_step,
    find_weights,
    list_checkpoints,
    refuse_taken_in,
    was_taken_in,
)
from fangcun.artifacts.folder import (
    MANIFEST,
    Manifest,
    check_replaceable,
    describe_inputs,
    discard,
    file_sha256,
    fingerprint,
    keep_replaced,
    parse_manifest,
    previous_of,
    put_back,
    read_manifest,
    replace_artifact,
    sync_file,
    write_artifact,
    write_text_atomic,
)
from fangcun.artifacts.lock import RunLock
from fangcun.artifacts.stale import TASKS_MARK, refuse_work_of_tasks, remove_stale
from fangcun.artifacts.timings import TIMINGS, Estimate, Progress, Timings, Work

__all__ = [
    "MANIFEST",
    "TASKS_MARK",
    "TIMINGS",
    "Estimate",
    "Manifest",
    "Progress",
    "RunLock",
    "Timings",
    "Work",
    "check_replaceable",
    "checkpoint_name",
    "checkpoint_step",
    "describe_changes",
    "describe_inputs",
    "discard",
    "file_sha256",
    "find_weights",
    "fingerprint",
    "keep_replaced",
    "list_checkpoints",
    "parse_manifest",
    "previous_of",
    "put_back",
    "read_manifest",
    "refuse_taken_in",
    "refuse_work_of_tasks",
    "remove_stale",
    "replace_artifact",
    "sync_file",
    "was_taken_in",
    "write_artifact",
    "write_text_atomic",
]
