"""Ctrl-C and SIGTERM: the first asks for a clean end, the second leaves at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

_FORWARDED_SECONDS = 5.0
"""torchrun passes on a signal that the terminal or Slurm has sent to each process already: one wish, that arrives twice."""


class Stop:
    """Set by a signal, read by the training loop between steps."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @property
    def requested(self) -> bool:
        """Whether the loop should finish its step, save and end."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 143 after SIGTERM, as shells count."""
        return 128 + (self.signal or 0)

    @property
    def name(self) -> str:
        """The signal's name for people."""
        return "Ctrl-C" if self.signal == signal.SIGINT else signal.Signals(self.signal or 0).name


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Within the block SIGINT and SIGTERM set `Stop`; a second one ends the process at once.

    Under torchrun a second one counts only when it comes seconds later, see `_FORWARDED_SECONDS`.

    Leaving at once is safe: folders are written aside and renamed, and the lock of a dead process is taken over.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    patience_seconds = _FORWARDED_SECONDS if "TORCHELASTIC_RUN_ID" in os.environ else 0.0
    came_at = 0.0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal came_at
        if stop.requested:
            if time.monotonic() - came_at < patience_seconds:
                return
            os._exit(128 + number)
        stop.signal, came_at = number, time.monotonic()
        if os.environ.get("RANK", "0") == "0":  # one voice
            os.write(2, b"\nStopping after this step and saving. Once more to leave at once.\n")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
