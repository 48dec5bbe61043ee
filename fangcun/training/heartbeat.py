"""Notices a rank, or a whole machine, that is gone, while the others wait for it in a collective.

A process that dies closes its connections and the others fail at once. A machine that loses its network says nothing:
they would wait for as long as a collective may take. So each rank counts up a number in torchrun's store every few
seconds and watches the numbers of the others; one that stands still, or a store that no longer answers, ends this process.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import signal
import socket
import sys
import threading
import time

import torch.distributed as dist

BEAT_SECONDS = 2.0
PATIENCE_SECONDS = 20.0
"""Silence after which a rank counts as gone."""

_FAREWELL_SECONDS = 5.0
"""What torchrun gets to end by itself."""
LOST_EXIT_CODE = 75
"""EX_TEMPFAIL: the same command again will go on."""


class Heartbeat:
    """Two daemon threads: one beats and listens, the other watches the first, which may hang on a dead network."""

    def __init__(self, rank: int, local_rank: int, world_size: int) -> None:
        self.rank, self.local_rank, self.world_size = rank, local_rank, world_size
        self._parent = os.getppid()
        self._stop = threading.Event()
        self._answered = time.monotonic()
        self._seen: dict[int, tuple[bytes, float]] = {}

    def start(self, store: dist.Store) -> None:
        """Begin. `store` is a connection of its own: another's long wait must not hold up the beat."""
        store.set_timeout(datetime.timedelta(seconds=PATIENCE_SECONDS))
        self._store = store
        self._store.set(f"host/{self.rank}", socket.gethostname())
        self._store.add(f"beat/{self.rank}", 0)
        for work in (self._beat, self._watch):
            threading.Thread(target=work, daemon=True, name=f"heartbeat{work.__name__}").start()

    def stop(self) -> None:
        """End, telling the others that this rank's silence means no harm. Can be called twice."""
        if self._stop.is_set():
            return
        self._stop.set()
        with contextlib.suppress(RuntimeError):
            self._store.set(f"beat/{self.rank}", "left")

    def _beat(self) -> None:
        count = 0
        others = [r for r in range(self.world_size) if r != self.rank]
        while not self._stop.wait(BEAT_SECONDS if count else 0):
            count += 1
            try:
                self._store.set(f"beat/{self.rank}", str(count))
                beats = self._store.multi_get([f"beat/{r}" for r in others])
            except RuntimeError:
                continue  # the watcher decides
            now = self._answered = time.monotonic()
            for other, beat in zip(others, beats, strict=True):
                before, since = self._seen.get(other, (beat, now))
                self._seen[other] = (beat, since if beat == before else now)
                if beat != b"left" and now - self._seen[other][1] > PATIENCE_SECONDS:
                    self._give_up(f"rank {other} on {self._host(other)} has not been heard of")

    def _watch(self) -> None:
        while not self._stop.wait(1.0):
            if time.monotonic() - self._answered > PATIENCE_SECONDS + BEAT_SECONDS:
                self._give_up(
                    f"the job's first machine ({os.environ['MASTER_ADDR']}) has not answered", end_torchrun=True
                )

    def _host(self, rank: int) -> str:
        with contextlib.suppress(RuntimeError):
            return self._store.get(f"host/{rank}").decode()
        return "another machine"

    def _give_up(self, what: str, *, end_torchrun: bool = False) -> None:
        if self._stop.is_set():
            return
        self._stop.set()
        if self.local_rank == 0:  # one message a machine
            print(
                f"error: {what} for {PATIENCE_SECONDS:.0f} s: it died or lost its network. This job ends; run the same command "
                "again to go on from the newest checkpoint (torchrun --max-restarts N does so by itself).",
                file=sys.stderr,
                flush=True,
            )
            if end_torchrun and "TORCHELASTIC_RUN_ID" in os.environ:
                _end(self._parent)
        os._exit(LOST_EXIT_CODE)  # the main thread waits in a collective and cannot be woken


def _end(agent: int) -> None:
    """End torchrun, which talks to the same dead machine, without a timeout: it would hang for a quarter of an hour.

    agent: its process, the parent of this one when it began. Once it has ended the parent is another, to be left alone.
    """
    for number in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        if os.getppid() != agent:
            return
        with contextlib.suppress(OSError):
            os.kill(agent, number)
        give_up = time.monotonic() + _FAREWELL_SECONDS
        while os.getppid() == agent and time.monotonic() < give_up:
            time.sleep(0.1)
