"""The command line on a terminal of its own, for what it asks only there."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time


def on_terminal(words: list[str], typed: bytes, **environment: str) -> tuple[int, str]:
    """`fangcun WORDS` on a terminal of its own, where `typed` is typed once it asks; exit code and what was shown."""
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "fangcun", *words],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, env=os.environ | environment,
        preexec_fn=_own_terminal,
    )  # fmt: skip
    os.close(theirs)
    shown, answered, give_up = b"", not typed, time.monotonic() + 60
    while time.monotonic() < give_up:
        if not select.select([ours], [], [], 1)[0]:
            continue
        try:
            more = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not more:
            break
        shown += more
        if not answered and b"[y/N] " in shown:
            answered = True
            os.write(ours, typed)
    else:
        process.kill()
    os.close(ours)
    return process.wait(30), shown.decode(errors="replace").replace("\r\n", "\n")


def _own_terminal() -> None:
    """Make the standard input the controlling terminal, so that Ctrl-C typed there is a signal, and one that counts:
    what a shell starts in the background ignores it."""
    import fcntl
    import termios

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
