"""One writer a run folder: a lock file that names its owner, and a lock of the operating system on it that cannot outlive him.

Between processes of one machine the system's lock is the truth: it ends with its process, however that ends, so there is
nothing to take over and no race. The text in the file is for people, for other hosts, and for file systems that have no
locks; there a dead owner is replaced under a second file that only one process can create.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
import time
from pathlib import Path
from types import TracebackType

from fangcun.errors import FangcunError

LOCK = "writer.lock"

_HELD = {errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK, getattr(errno, "EDEADLOCK", errno.EDEADLK)}
_LOCKED_BYTE = 2**30
"""Far behind the text: Windows forbids others to read what is locked."""
_PATIENCE_SECONDS = 1.0
"""How long a lock file may be without its owner's name, which is written right after it is made."""

Owner = dict[str, object]


def _process(pid: int) -> tuple[str, str]:
    """State and start time of a process; ("", "") where /proc is missing or has no such process."""
    with contextlib.suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1].split()
        return fields[0], fields[19]
    return "", ""


def _alive(owner: Owner) -> bool:
    """Whether a process of this host lives. One that has ended and waits for its parent does not; a recycled pid neither."""
    pid = int(str(owner["pid"]))
    if sys.platform == "win32":
        return _alive_on_windows(pid)
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    state, start = _process(pid)
    return state not in ("Z", "X") and owner.get("start", "") in ("", start)


def _alive_on_windows(pid: int) -> bool:
    import ctypes

    kernel32 = ctypes.windll.kernel32  # type: ignore[attr-defined]
    handle = kernel32.OpenProcess(0x1000, False, pid)
    if not handle:
        return False
    try:
        code = ctypes.c_ulong()
        still_active = 259
        return not kernel32.GetExitCodeProcess(handle, ctypes.byref(code)) or code.value == still_active
    finally:
        kernel32.CloseHandle(handle)


def _lock(handle: int) -> bool | None:
    """Lock an open file without waiting. False: another has it; None: this file system has no locks."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(handle, _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in _HELD else None
    return True


def _read(path: Path) -> Owner | None:
    """Who the lock file names; None where it is missing or torn."""
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        int(owner["pid"])
        return owner if isinstance(owner["host"], str) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(handle: int, owner: Owner) -> None:
    os.ftruncate(handle, 0)
    os.lseek(handle, 0, os.SEEK_SET)
    os.write(handle, json.dumps(owner).encode())


class RunLock:
    """`with RunLock(folder):` holds the folder for writing. Raises FangcunError when another live process holds it.

    A lock from another host is trusted for as long as it stands: its owner cannot be asked from here. Only a lock of the
    same job of torchrun's is taken over, see `_job`.
    """

    def __init__(self, folder: Path) -> None:
        self.path = Path(folder) / LOCK
        self._handle: int | None = None

    def __enter__(self) -> RunLock:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        give_up = time.monotonic() + 10 * _PATIENCE_SECONDS
        while time.monotonic() < give_up:
            if self._attempt():
                return self
            time.sleep(0.005)
        raise FangcunError(f"{self.path} could not be taken: other processes are after it too. Run again.")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        handle, self._handle = self._handle, None
        if handle is None:
            return
        if sys.platform == "win32":
            # An open file cannot be deleted there: neither ours by us, nor, once another has opened it, his.
            os.close(handle)
            with contextlib.suppress(OSError):
                self.path.unlink()
            return
        try:
            owner = _read(self.path)
            if owner is not None and owner["pid"] == os.getpid() and self._is_at_path(handle):
                self.path.unlink(missing_ok=True)
        finally:
            os.close(handle)

    def _attempt(self) -> bool:
        """Take the lock (True), or learn that the file is changing hands at this moment (False). Raises FangcunError."""
        opened = self._open()
        if opened is None:
            return False
        handle, created = opened
        try:
            locked = _lock(handle)
            if locked is False:
                self._refuse_when_named()
                return False
            if not self._is_at_path(handle):  # its owner left and took the file with him
                return False
            if locked:
                self._refuse_the_living(locked=True)
            elif not created and not self._may_take_over(handle):
                return False
            _write(handle, _me(system_lock=bool(locked)))
            if not locked:
                self._guard.unlink(missing_ok=True)
            self._handle = handle
            return True
        finally:
            if self._handle is None:
                os.close(handle)

    @property
    def _guard(self) -> Path:
        return self.path.with_name(f"{LOCK}.takeover")

    def _open(self) -> tuple[int, bool] | None:
        """The lock file and whether this process made it; None when it came or went in between."""
        flags = os.O_RDWR | getattr(os, "O_BINARY", 0)
        try:
            return os.open(self.path, flags | os.O_CREAT | os.O_EXCL, 0o644), True
        except FileExistsError:
            pass
        except PermissionError:
            if not self.path.exists():
                raise
        try:
            return os.open(self.path, flags), False
        except FileNotFoundError:
            return None

    def _is_at_path(self, handle: int) -> bool:
        try:
            return os.path.samestat(os.fstat(handle), os.stat(self.path))  # noqa: PTH116 - a handle has no Path
        except OSError:
            return False

    def _refuse_when_named(self) -> None:
        """Another holds the system's lock: say who, after waiting for his name. Returns when the file went away."""
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while self.path.exists():
            owner = _read(self.path)
            named = owner is not None and (owner["host"] != socket.gethostname() or _alive(owner))
            if named or time.monotonic() > give_up:
                raise self._refusal(owner)
            time.sleep(0.005)

    def _refuse_the_living(self, *, locked: bool) -> None:
        """Raise when the file names another host, or a living process that holds it without the system's help."""
        owner = _read(self.path)
        if owner is None:
            return
        if owner["host"] != socket.gethostname() and owner.get("job") and owner["job"] == _job():
            return  # the same job, whose first rank is on another machine now that it was started again
        # Who held the system's lock holds it no more, for we have it: dead, whoever has his pid now.
        gone = locked and bool(owner.get("system_lock"))
        if owner["host"] != socket.gethostname() or (not gone and _alive(owner)):
            raise self._refusal(owner)

    def _may_take_over(self, handle: int) -> bool:
        """Without the system's locks: whether this process alone may replace a dead owner. Raises FangcunError."""
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while _read(self.path) is None:
            if not self.path.exists():
                return False
            if time.monotonic() > give_up:
                break
            time.sleep(0.005)
        self._refuse_the_living(locked=False)
        try:
            os.close(os.open(self._guard, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                if time.time() - self._guard.stat().st_mtime > 5 * _PATIENCE_SECONDS:
                    raise FangcunError(
                        f"{self._guard} was left by a process that died while it took the lock. Delete it and run again."
                    ) from None
            return False
        # Only who made the guard goes on, and the dead owner may have been replaced since he was looked at.
        try:
            self._refuse_the_living(locked=False)
            still_there = self._is_at_path(handle)
        except BaseException:
            self._guard.unlink(missing_ok=True)
            raise
        if not still_there:
            self._guard.unlink(missing_ok=True)
        return still_there

    def _refusal(self, owner: Owner | None) -> FangcunError:
        folder = self.path.parent
        if owner is None:
            return FangcunError(
                f"{folder} is being written by another process. Wait for it, stop it, or choose another folder with --out."
            )
        since = owner.get("since", "an unknown time")
        if owner["host"] != socket.gethostname():
            return FangcunError(
                f"{folder} is being written by process {owner['pid']} on host {owner['host']} since {since}. If that machine is gone, delete {self.path} and run again."
            )
        return FangcunError(
            f"{folder} is being written by process {owner['pid']} on this machine since {since}. Wait for it, stop it, or choose another folder with --out."
        )


def _job() -> str:
    """torchrun's name for what this process belongs to, kept when it is started again; "" without one.

    torchrun ends every process of a job before it starts them again, but on which machine the first rank then is it
    chooses anew. (Its default name is no name.)
    """
    run_id = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    return "" if run_id == "none" else run_id


def _me(*, system_lock: bool) -> Owner:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "start": _process(os.getpid())[1],
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "system_lock": system_lock,
        "job": _job(),
    }
