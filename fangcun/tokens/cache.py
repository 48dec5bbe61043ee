"""Blocks of remote files on the local disk, in bounded space, the least recently used going first.

A block is a file named after the sha256 of the whole file it belongs to and its number, so that what is cached stays
right whatever happens at the URL. All writing and deleting is done under a lock of the operating system, hence several
processes may share a folder and the bound holds for all of them together. Reading takes no lock: a block that went away
is fetched again. Behind a block's content stands its CRC-32.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import time
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from fangcun.errors import OutOfReachError

DEFAULT_CACHE_BYTES = 20_000_000_000
TOUCH_SECONDS = 30.0
"""How often the time of use of a block is written down."""
FULL_SECONDS = 30.0
"""How long a cache that is full of what is in use is taken for full."""

_KEY = re.compile(r"[0-9a-f]{64}")
_BLOCK = re.compile(r"\d{6,}\.block(\.tmp)?")
_CHECK_BYTES = 4
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


def default_cache_folder() -> Path:
    """fangcun/tokens below the user's cache folder, where the system has it."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "fangcun" / "tokens"


class BlockCache:
    """Blocks below `folder`, at most `limit_bytes` of them. Files of others in that folder are left alone.

    Safe to use from several threads and processes. Raises FangcunError where the folder cannot be used.
    """

    def __init__(self, folder: Path, limit_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        self.folder, self.limit_bytes = Path(folder), limit_bytes
        self._seen: dict[tuple[str, int], float] = {}
        """Blocks that this process has compared with their checksum -> when their time of use was written last."""
        self._full_until = 0.0
        """Until then (of the monotonic clock) nothing is looked for that could be deleted: there was nothing."""
        with self._explained():
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked() as ledger:
                ledger.total_bytes = self._evict(limit_bytes)

    def read(self, key: str, index: int, size_bytes: int, spans: Sequence[tuple[int, int]]) -> list[bytes] | None:
        """The bytes (start, stop) of a block of size_bytes; None where it is not here or was damaged, and is so no more."""
        path = self._path(key, index)
        try:
            with open(path, "rb", buffering=0) as file:
                parts = self._parts(file, (key, index), size_bytes, spans)
        except FileNotFoundError:
            return None
        except OSError:
            parts = None
        if parts is None:
            self.drop(key, index)
            return None
        self._touch(path, (key, index))
        return parts

    def _parts(self, file, block: tuple[str, int], size_bytes: int, spans: Sequence[tuple[int, int]]) -> list[bytes] | None:  # fmt: skip
        if os.fstat(file.fileno()).st_size != size_bytes + _CHECK_BYTES:
            return None
        if block not in self._seen:
            content = file.readall()
            body = content[:-_CHECK_BYTES]
            if len(body) != size_bytes or _checksum(body) != content[-_CHECK_BYTES:]:
                return None
            self._seen[block] = -TOUCH_SECONDS
            return [body[start:stop] for start, stop in spans]
        parts = []
        for start, stop in spans:
            file.seek(start)
            part = file.read(stop - start)
            if len(part) != stop - start:
                return None
            parts.append(part)
        return parts

    def has_room(self, content_bytes: int, spare: Collection[str] = ()) -> bool:
        """Whether a block of this size can be kept without deleting one of the files `spare`. Others' blocks go for it."""
        size_bytes = content_bytes + _CHECK_BYTES
        if size_bytes > self.limit_bytes:
            return False
        with self._explained():
            with open(self.folder / "lock", "rb") as file:
                total = _number(file.read())
            if total is not None and total + size_bytes <= self.limit_bytes:
                return True
            if time.monotonic() < self._full_until:
                return False
            with self._locked() as ledger:
                total = ledger.total_bytes = self._make_room(size_bytes, spare)
        if total + size_bytes <= self.limit_bytes:
            return True
        self._full_until = time.monotonic() + FULL_SECONDS
        return False

    def _make_room(self, size_bytes: int, spare: Collection[str]) -> int:
        # Some more than needed, so that the folder is not looked through for each block.
        return self._evict(self.limit_bytes - max(size_bytes, self.limit_bytes // 16), spare)

    def put(self, key: str, index: int, content: bytes, spare: Collection[str] = ()) -> bool:
        """Keep a block. False where it does not fit beside those of the files `spare`. Raises FangcunError when the disk is full."""
        size_bytes = len(content) + _CHECK_BYTES
        if size_bytes > self.limit_bytes:
            return False
        path = self._path(key, index)
        temporary = path.with_name(path.name + ".tmp")
        with self._explained(), self._locked() as ledger:
            if _size(path) == size_bytes:
                return True  # another process was faster
            total = ledger.total_bytes
            if total is None or total + size_bytes > self.limit_bytes:
                total = ledger.total_bytes = self._make_room(size_bytes, spare)
                if total + size_bytes > self.limit_bytes:
                    return False
            ledger.total_bytes = total + size_bytes  # first: a crash may leave it too high, never too low
            path.parent.mkdir(exist_ok=True)
            try:
                with open(temporary, "wb") as file:
                    file.write(content)
                    file.write(_checksum(content))
                _stamp(temporary)
                temporary.replace(path)
            except BaseException:
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)
                raise
        self._seen[key, index] = time.monotonic()
        return True

    def drop(self, key: str, index: int) -> None:
        """Delete a block, if it is here."""
        self._seen.pop((key, index), None)
        with contextlib.suppress(OSError):
            self._path(key, index).unlink(missing_ok=True)

    def count(self, key: str) -> int:
        """Blocks of a file that are here."""
        try:
            return sum(name.endswith(".block") for name in os.listdir(self.folder / key))  # noqa: PTH208 (names alone)
        except FileNotFoundError:
            return 0

    def total_bytes(self) -> int:
        """Bytes that the folder's blocks take, looked up now."""
        return sum(size for _, size, _ in self._blocks())

    # ------------------------------------------------------------------ inside

    def _path(self, key: str, index: int) -> Path:
        return self.folder / key / f"{index:06d}.block"

    def _touch(self, path: Path, block: tuple[str, int]) -> None:
        now = time.monotonic()
        if now - self._seen.get(block, -TOUCH_SECONDS) >= TOUCH_SECONDS:
            self._seen[block] = now
            with contextlib.suppress(OSError):
                _stamp(path)

    def _blocks(self) -> Iterator[tuple[int, int, Path]]:
        """(time of use, size in bytes, path) of each block, half-written ones included."""
        with os.scandir(self.folder) as folders:
            keys = [entry.path for entry in folders if _KEY.fullmatch(entry.name) and entry.is_dir()]
        for key in keys:
            with contextlib.suppress(FileNotFoundError), os.scandir(key) as entries:
                for entry in entries:
                    if _BLOCK.fullmatch(entry.name):
                        with contextlib.suppress(FileNotFoundError):
                            stat = entry.stat()
                            yield stat.st_mtime_ns, stat.st_size, Path(entry.path)

    def _evict(self, target_bytes: int, spare: Collection[str] = ()) -> int:
        """Delete, but no block of `spare`, until at most target_bytes are left; return how many are. With the lock held."""
        total, blocks = 0, []
        for used, size_bytes, path in self._blocks():
            if path.suffix == ".tmp" and _unlink(path):  # its writer is dead, or it would hold the lock
                continue
            total += size_bytes
            blocks.append((used, size_bytes, path))
        if total > target_bytes:
            for _, size_bytes, path in sorted(blocks):
                if path.parent.name not in spare and _unlink(path):
                    total -= size_bytes
                if total <= target_bytes:
                    break
            for folder in {path.parent for _, _, path in blocks}:
                with contextlib.suppress(OSError):
                    folder.rmdir()  # refuses while something is in it
        return total

    @contextlib.contextmanager
    def _locked(self) -> Iterator[_Ledger]:
        handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
        try:
            _lock(handle)
            yield _Ledger(handle)
        finally:
            os.close(handle)  # which gives the lock back

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Errors of the disk as FangcunError."""
        try:
            yield
        except OSError as error:
            if error.errno in _FULL:
                raise OutOfReachError(
                    f"the cache folder {self.folder} is full: its disk has no room for the {self.limit_bytes:,} bytes of tokens.cache_bytes. "
                    "Free some space, lower --tokens.cache_bytes or name another --tokens.cache_folder, and run the same command again."
                ) from error
            raise OutOfReachError(
                f"the cache folder {self.folder} cannot be used ({error.strerror or error}). Name a folder on a local disk with --tokens.cache_folder."
            ) from error


class _Ledger:
    """The sum of all blocks' sizes, in the lock file, so that not every block asks for a look through the folder."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    @property
    def total_bytes(self) -> int | None:
        """None where it is not known."""
        os.lseek(self._handle, 0, os.SEEK_SET)
        return _number(os.read(self._handle, 40))

    @total_bytes.setter
    def total_bytes(self, value: int) -> None:
        os.lseek(self._handle, 0, os.SEEK_SET)
        os.write(self._handle, b"%39d\n" % value)


def _number(text: bytes) -> int | None:
    return int(text) if text.strip().isdigit() else None


def _checksum(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(_CHECK_BYTES, "little")


def _stamp(path: Path) -> None:
    """Write down that a block is used now: the system's own times are some milliseconds coarse."""
    now = time.time_ns()
    os.utime(path, ns=(now, now))


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _unlink(path: Path) -> bool:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _lock(handle: int) -> None:
    """Wait for the lock on an open file."""
    if sys.platform == "win32":
        import msvcrt

        while True:
            try:
                os.lseek(handle, 2**30, os.SEEK_SET)  # far behind the text: what is locked cannot be read there
                msvcrt.locking(handle, msvcrt.LK_LOCK, 1)
                return
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EDEADLK):  # ten seconds are over: again
                    raise
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX)
