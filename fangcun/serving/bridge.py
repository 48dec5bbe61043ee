"""From the engine's thread to the event loop: what the engine delivers waits here until the answer is written.

A reader that is slow never holds the engine: pieces that wait are joined, so that what is kept is the text of one
request at most, which `max_new_tokens` and `max_samples` bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial

from fangcun.errors import FangcunError
from fangcun.generation import Engine, Finished, Piece, QueueFullError, Request
from fangcun.serving.errors import ApiError

Event = tuple[int, Piece | Finished]
"""The number of the prompt, and what came."""


class Generation:
    """The samples of one HTTP request. Lives on the event loop; `deliver` alone is called from elsewhere."""

    def __init__(self, engine: Engine, timeout_seconds: float) -> None:
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._waiting: list[Event] = []
        self._news = asyncio.Event()
        self._woken = False
        self._tickets: list = []
        self._left = 0
        self._timeout_seconds = timeout_seconds
        self.started = time.monotonic()
        self.deadline = self.started + timeout_seconds

    def submit(self, requests: Sequence[Request], *, retry_seconds: int) -> None:
        """Hand all requests to the engine, or none. Raises ApiError 429 when its queue is full, 400 when it refuses one."""
        try:
            for number, request in enumerate(requests):
                self._left += request.n
                self._tickets.append(self._engine.submit(request, partial(self._deliver, number)))
        except QueueFullError as error:
            self.cancel()
            raise ApiError(
                429, str(error), code="queue_full", headers={"Retry-After": str(retry_seconds)}
            ) from None  # fmt: skip
        except FangcunError as error:
            self.cancel()
            raise ApiError(400, str(error)) from None

    def _deliver(self, number: int, event: Piece | Finished) -> None:
        """Called in the engine's thread. Wakes the loop once for all that comes before it looks."""
        with self._lock:
            self._waiting.append((number, event))
            if self._woken:
                return
            self._woken = True
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody reads any more
            self._loop.call_soon_threadsafe(self._news.set)

    async def batches(self) -> AsyncIterator[list[Event]]:
        """What has come since the last look, until every sample has finished. Raises ApiError 504 at the time limit."""
        while self._left:
            try:
                await asyncio.wait_for(self._news.wait(), max(0.0, self.deadline - time.monotonic()))
            except asyncio.TimeoutError:
                self.cancel()
                raise ApiError(
                    504, f"The request took longer than {self._timeout_seconds:g} s, the limit of this server. Ask for fewer tokens, or raise --timeout-seconds.", code="timeout"
                ) from None  # fmt: skip
            with self._lock:
                events, self._waiting, self._woken = self._waiting, [], False
                self._news.clear()
            self._left -= sum(isinstance(event, Finished) for _, event in events)
            yield join_pieces(events)

    def cancel(self) -> None:
        """Free the engine. Harmless when all is done."""
        for ticket in self._tickets:
            ticket.cancel()


def join_pieces(events: list[Event]) -> list[Event]:
    """The same text and tokens in at most one piece a sample, each before its end, in the order of their first piece."""
    pieces: dict[tuple[int, int], list[Piece]] = {}
    ends: list[Event] = []
    for number, event in events:
        if isinstance(event, Piece):
            pieces.setdefault((number, event.sample), []).append(event)
        else:
            ends.append((number, event))
    joined: list[Event] = []
    for (number, sample), several in pieces.items():
        one = several[0]
        if len(several) > 1:
            one = Piece(sample, "".join(p.text for p in several), tuple(t for p in several for t in p.tokens))
        joined.append((number, one))
    return joined + ends
