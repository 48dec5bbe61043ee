"""One writer a run folder: a lock file that names host and process, taken over when its owner is dead."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from pathlib import Path
from types import TracebackType

from fangcun.errors import FangcunError

LOCK = "writer.lock"


def _process_start(pid: int) -> str:
    """When a process started, so that a recycled pid is not taken for the old owner. Empty where /proc is missing."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    return ""


def _alive(owner: dict[str, object]) -> bool:
    pid = int(str(owner["pid"]))
    if sys.platform == "win32":
        import ctypes

        handle = ctypes.windll.kernel32.OpenProcess(0x1000, False, pid)
        if handle:
            ctypes.windll.kernel32.CloseHandle(handle)
        return bool(handle)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return owner.get("start", "") in ("", _process_start(pid))


class RunLock:
    """`with RunLock(folder):` holds the folder for writing. Raises FangcunError when another live process holds it.

    A lock from another host is trusted for as long as it stands: its owner cannot be asked from here.
    """

    def __init__(self, folder: Path) -> None:
        self.path = Path(folder) / LOCK

    def __enter__(self) -> RunLock:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        me = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "start": _process_start(os.getpid()),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        # The lock is written aside and linked into place, so that it is never seen half written.
        mine = self.path.with_name(f"{LOCK}.{os.getpid()}")
        mine.write_text(json.dumps(me), encoding="utf-8")
        try:
            for _ in range(3):
                if self._take(mine):
                    return self
                owner = self._owner()
                if owner is None:
                    continue
                if owner["host"] != me["host"]:
                    raise FangcunError(
                        f"{self.path.parent} is being written by process {owner['pid']} on host {owner['host']} since {owner['since']}. If that machine is gone, delete {self.path} and run again."
                    )
                if _alive(owner):
                    raise FangcunError(
                        f"{self.path.parent} is being written by process {owner['pid']} on this machine since {owner['since']}. Wait for it, stop it, or choose another folder with --out."
                    )
                with contextlib.suppress(FileNotFoundError):
                    self.path.unlink()
            raise FangcunError(f"{self.path} could not be taken: other processes are after it too. Run again.")
        finally:
            mine.unlink(missing_ok=True)

    def _take(self, mine: Path) -> bool:
        if hasattr(os, "link"):
            with contextlib.suppress(FileExistsError):
                try:
                    os.link(mine, self.path)
                    return True
                except PermissionError:  # file systems without hard links
                    return self._take_exclusive(mine)
            return False
        return self._take_exclusive(mine)

    def _take_exclusive(self, mine: Path) -> bool:
        try:
            handle = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return False
        with os.fdopen(handle, "wb") as file:
            file.write(mine.read_bytes())
        return True

    def _owner(self) -> dict[str, object] | None:
        try:
            return json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:
            return {"host": socket.gethostname(), "pid": 2**31 - 1, "since": "an unknown time"}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        owner = self._owner()
        if owner is not None and owner["pid"] == os.getpid() and owner["host"] == socket.gethostname():
            self.path.unlink(missing_ok=True)
