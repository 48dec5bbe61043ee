"""One file from a hub: into a part that is gone on with, checked, renamed when whole. And many, a few at a time."""

from __future__ import annotations

import hashlib
import queue
import re
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from http.client import HTTPResponse
from pathlib import Path

from fangcun.artifacts.folder import sync_file
from fangcun.errors import FangcunError
from fangcun.hubs.checksum import BLOCK_BYTES, Digests, Hasher, agrees
from fangcun.hubs.failures import Cancelled, PassingError, StatusError, network_failures
from fangcun.hubs.listing import RemoteFile
from fangcun.hubs.refusals import file_error
from fangcun.hubs.transport import Transport, final_host

_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)$")
_POLL_SECONDS = 0.2
_LAST_WRITE_SECONDS = 1.0
"""Enough for a thread that is writing a block as the others stop."""

Gained = Callable[[int], None]
"""Told how many bytes came; below zero when some were thrown away."""


class _WrongContentError(Exception):
    """What came is not what the listing says."""


def part_path(folder: Path, file: RemoteFile) -> Path:
    """Where the beginning of a file waits. By content, so that no part is gone on with that belongs to another version."""
    content = f"{file.path}\0{file.size_bytes}\0{file.sha256 or file.git_sha1 or file.url}"
    return folder / f"{hashlib.sha256(content.encode(errors='surrogatepass')).hexdigest()[:32]}.part"


def fetch_file(transport: Transport, file: RemoteFile, part: Path, target: Path, gained: Gained) -> Digests:
    """Fetch, check and rename a file. A content that is wrong is thrown away and fetched once more.

    `gained` is called with the bytes as they come, not with those that the part already has. Raises FangcunError, Cancelled.
    """
    reason = ""
    for _ in range(2):
        try:
            digests = _fetch_part(transport, file, part, gained)
            if agrees(digests, file):
                sync_file(part)
                target.parent.mkdir(parents=True, exist_ok=True)
                part.replace(target)
                return digests
            reason = f"its {file.checked_by} is not that of the listing"
        except _WrongContentError as wrong:
            reason = str(wrong)
        if part.exists():
            gained(-part.stat().st_size)
            part.unlink()
    raise FangcunError(
        f"{file.path} from {transport.repository.host} is not what the listing says, twice: {reason}. What came was thrown away. "
        "The repository may have changed just now: run the same command again, or choose another --source."
    )


def _fetch_part(transport: Transport, file: RemoteFile, part: Path, gained: Gained) -> Digests:
    part.parent.mkdir(parents=True, exist_ok=True)
    hasher = Hasher(file.size_bytes, git=file.needs_git_sha1)
    done_bytes = part.stat().st_size if part.exists() else 0
    if done_bytes > file.size_bytes:
        part.unlink()
        done_bytes = 0
    if done_bytes:
        hasher.update_from(part)
    patience = transport.patience()
    with open(part, "ab") as out:
        while done_bytes < file.size_bytes:
            try:
                with _open(transport, file, done_bytes) as response:
                    start_bytes = _start(response, file)
                    if start_bytes != done_bytes:
                        # It does not know ranges: from the beginning.
                        gained(-done_bytes)
                        out.truncate(0)
                        hasher, done_bytes = Hasher(file.size_bytes, git=file.needs_git_sha1), 0
                        if start_bytes:
                            raise PassingError("it sends another piece than was asked for")
                    while block := _read(response):
                        if transport.cancel.is_set():
                            raise Cancelled
                        if done_bytes + len(block) > file.size_bytes:
                            raise _WrongContentError(f"it is longer than {file.size_bytes:,} bytes")
                        out.write(block)
                        hasher.update(block)
                        done_bytes += len(block)
                        gained(len(block))
                        patience.renew()
                    if done_bytes < file.size_bytes:
                        raise PassingError("the connection ended early")
            except PassingError as failure:
                out.flush()
                patience.wait(failure)
    return hasher.result()


def _open(transport: Transport, file: RemoteFile, start_bytes: int) -> HTTPResponse:
    try:
        return transport.open(file.url, start_bytes=start_bytes)
    except StatusError as refusal:
        if refusal.status == 416:
            raise _WrongContentError("it is shorter than the listing says") from refusal
        if refusal.status == 403 and refusal.host != transport.repository.host:
            # The address that the hub signed for its store; the next attempt gets a new one.
            raise PassingError("HTTP 403", host=refusal.host, answered=True) from refusal
        raise file_error(refusal, transport, file.path) from refusal


def _start(response: HTTPResponse, file: RemoteFile) -> int:
    """The offset at which an answer begins. Raises _WrongContentError when it announces another length than the listing."""
    length = response.headers.get("Content-Length", "")
    start, total = 0, length if response.status == 200 else ""
    if response.status == 206:
        found = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        if not found:
            raise PassingError("it sends a piece and does not say which")
        start, total = int(found[1]), found[2]
    if total.isdecimal() and int(total) != file.size_bytes:
        raise _WrongContentError(f"it has {int(total):,} bytes, the listing says {file.size_bytes:,}")
    return start


def _read(response: HTTPResponse) -> bytes:
    with network_failures([final_host(response)]):
        return response.read1(BLOCK_BYTES)


def fetch_all(
    transport: Transport,
    files: Sequence[RemoteFile],
    parts: Path,
    target: Callable[[RemoteFile], Path],
    connections: int,
    gained: Gained,
) -> Generator[tuple[RemoteFile, Digests] | None, None, None]:
    """Fetch files in `connections` threads; yield each when it is whole, and None a few times a second.

    The first error stops all, and is raised. So does leaving the generator; a thread that waits for the network then ends
    by itself, and writes nothing more.
    """
    todo: queue.SimpleQueue[RemoteFile] = queue.SimpleQueue()
    for file in files:
        todo.put(file)
    done: queue.SimpleQueue[tuple[RemoteFile, Digests | BaseException]] = queue.SimpleQueue()

    def work() -> None:
        while not transport.cancel.is_set():
            try:
                file = todo.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((file, fetch_file(transport, file, part_path(parts, file), target(file), gained)))
            except BaseException as error:
                done.put((file, error))
                return

    # Threads of an executor would be waited for when the program ends, 30 seconds for one that hears nothing.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(connections, len(files)))]
    for thread in threads:
        thread.start()
    try:
        yield from _whole(done, len(files))
    finally:
        transport.cancel.set()
        for thread in threads:
            thread.join(_LAST_WRITE_SECONDS)


def _whole(
    done: queue.SimpleQueue[tuple[RemoteFile, Digests | BaseException]], count: int
) -> Iterable[tuple[RemoteFile, Digests] | None]:
    while count:
        try:
            file, result = done.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            yield None
            continue
        if isinstance(result, BaseException):
            raise result
        count -= 1
        yield file, result
