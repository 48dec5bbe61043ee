"""Fetching with a progress line, and a record on the way of what is whole already."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

from fangcun.console import Console, format_bytes, format_seconds
from fangcun.hubs.fetch import fetch_all, part_path
from fangcun.hubs.listing import RemoteFile
from fangcun.hubs.plan import FILES
from fangcun.hubs.record import Record, entry_of
from fangcun.hubs.transport import Transport

_RECORD_SECONDS = 10.0
"""Between writings of the record: what it does not know yet is read again, not fetched again."""
_RATE_SECONDS = 10.0
"""Time over which the speed that is shown is an average."""


def fetch_with_progress(
    transport: Transport, files: Sequence[RemoteFile], stage: Path, record: Record, connections: int, console: Console
) -> None:
    """Fetch `files` into `stage`/files; `record`, in `stage`, has those that are whole, also after an error."""
    places = stage / FILES
    parts = [part_path(stage, file) for file in files]
    begun_bytes = sum(part.stat().st_size for part in parts if part.is_file())
    meter = _Meter(begun_bytes, sum(file.size_bytes for file in files))
    if begun_bytes:
        console.say(f"going on after {format_bytes(begun_bytes)} that came before")
    line = console.progress("download")
    written = time.monotonic()
    fetched = fetch_all(transport, files, stage, lambda file: places / file.path, connections, meter.gained)
    try:
        for result in fetched:
            if result is not None:
                file, digests = result
                record.files[file.path] = entry_of(places / file.path, digests, file.checked_by)
            line(meter.done_bytes, meter.total_bytes, meter.note())
            if time.monotonic() - written > _RECORD_SECONDS:
                record.write(stage)
                written = time.monotonic()
    finally:
        console.clear()
        fetched.close()
        record.write(stage)


class _Meter:
    """Bytes that are there of those that shall be, and how fast they come."""

    def __init__(self, done_bytes: int, total_bytes: int) -> None:
        self.done_bytes, self.total_bytes = done_bytes, total_bytes
        self._lock = threading.Lock()
        self._seen = [(time.monotonic(), done_bytes)]

    def gained(self, count_bytes: int) -> None:
        """Count bytes that came; called by many threads."""
        with self._lock:
            self.done_bytes += count_bytes

    def note(self) -> str:
        """'12.0 MB/s, 3:05 left, 1.2 GB of 3.4 GB'."""
        now = time.monotonic()
        self._seen.append((now, self.done_bytes))
        while len(self._seen) > 2 and self._seen[1][0] < now - _RATE_SECONDS:
            self._seen.pop(0)
        since, before = self._seen[0]
        seconds = now - since
        rate = max(0, self.done_bytes - before) / seconds if seconds > 0 else 0.0
        left = f", {format_seconds((self.total_bytes - self.done_bytes) / rate)} left" if rate > 0 else ""
        return f"{format_bytes(rate)}/s{left}, {format_bytes(self.done_bytes)} of {format_bytes(self.total_bytes)}"
