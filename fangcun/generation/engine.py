"""Many requests at once on one model: each joins the batch when it comes and leaves when it is done.

Every turn reads one stretch of one waiting prompt, then one token of every sample that writes (continuous batching, Yu et
al. 2022, Orca). A prompt that begins like one read before is read from where they part. Requests are served in the order
in which they came. The same engine runs in a thread of its own (`start`, `submit`) or in the caller's (`stream`).
"""

from __future__ import annotations

import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fangcun.errors import FangcunError
from fangcun.generation.ids import evaluation_mode
from fangcun.generation.requests import Finished, Piece, QueueFullError, Request, check_request
from fangcun.generation.rows import Rows
from fangcun.generation.writing import Writing

if TYPE_CHECKING:
    from fangcun.generation.language_model import LanguageModel

Event = Piece | Finished
Deliver = Callable[[Event], None]

PREFILL_TOKENS = 256
"""Of a prompt read in one turn: those that write wait no longer than that for their next token."""

MAX_SAMPLES = 128
"""Samples of one request."""


@dataclass
class Totals:
    """Counts since the engine was made."""

    prompt_tokens: int = 0
    """Of all prompts that were begun."""
    cached_tokens: int = 0
    """Of those, not read because they had been before."""
    generated_tokens: int = 0
    steps: int = 0
    """Forward passes of the batch."""


class Ticket:
    """A request on its way."""

    def __init__(self, engine: Engine, writings: list[Writing]) -> None:
        self._engine, self.writings = engine, writings

    def cancel(self) -> None:
        """End what is not ended; a Finished with reason "cancelled" follows for each such sample. From any thread."""
        for writing in self.writings:
            writing.cancelled = True
        self._engine.wake()


class Engine:
    """Continues prompts on a LanguageModel, `max_batch` samples at a time."""

    def __init__(
        self, lm: LanguageModel, *, max_batch: int = 16, max_waiting: int = 256, max_length: int | None = None
    ) -> None:
        """max_waiting: requests that may wait. max_length: positions a sample, where less than block_size is known to do."""
        if max_batch < 1 or max_waiting < 0:
            raise FangcunError(
                f"max_batch is {max_batch} and max_waiting {max_waiting}, expected at least 1 and at least 0."
            )
        self.lm = lm
        self.max_batch, self.max_waiting = max_batch, max_waiting
        self.rows = Rows(lm.model, max_batch, min(max_length or lm.config.block_size, lm.config.block_size))
        self.totals = Totals()
        self._incoming: deque[Writing] = deque()
        self._active: list[Writing] = []
        self._filling: Writing | None = None
        self._lock = threading.Condition()
        self._turns = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing: float | None = None

    @property
    def running(self) -> int:
        """Samples that are being written, or read."""
        return len(self._active) + (self._filling is not None)

    @property
    def alive(self) -> bool:
        """False once its own thread has died of a fault in the engine itself: nothing more will be answered."""
        return self._thread is None or self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Samples that wait for a place."""
        return len(self._incoming)

    def submit(self, request: Request, deliver: Deliver) -> Ticket:
        """Queue a request; `deliver` gets its events, in the thread that runs the engine. From any thread.

        What `deliver` raises ends that sample. Raises QueueFullError, or FangcunError naming the field that is wrong.
        """
        check_request(request, int(self.lm.model.embedding.weight.shape[0]), MAX_SAMPLES)
        writings = [Writing(self.lm, request, number, deliver) for number in range(request.n)]
        with self._lock:
            if self._closing is not None:
                raise QueueFullError("The engine is shutting down and takes no more requests.")
            free = self.max_batch - self.running
            if len(self._incoming) + request.n > self.max_waiting + free and self._incoming:
                raise QueueFullError(
                    f"{len(self._incoming)} samples wait already (max_waiting is {self.max_waiting}). Ask again later."
                )
            self._incoming += writings
            self._lock.notify_all()
        return Ticket(self, writings)

    def stream(self, request: Request) -> Generator[Event, None, None]:
        """The events of one request; runs the engine in this thread unless `start` did. Closing it cancels the request."""
        events: deque[Event] = deque()
        arrived = threading.Event()

        def deliver(event: Event) -> None:
            events.append(event)
            arrived.set()

        ticket = self.submit(request, deliver)
        left = request.n
        try:
            while left:
                if not events:
                    if self._thread is None:
                        self.turn()
                    elif self.alive:
                        arrived.wait(0.5)
                        arrived.clear()
                    else:
                        raise FangcunError("The engine's thread has died; its error is in the log. Make a new engine.")
                    continue
                event = events.popleft()
                if isinstance(event, Finished):
                    left -= 1
                    if event.reason == "error":
                        raise FangcunError(event.error or "the engine failed")
                yield event
        finally:
            if left:
                ticket.cancel()
                if self._thread is None:
                    self.turn()

    def start(self) -> None:
        """Run in a thread of its own until `close`."""
        with self._lock:
            if self._thread is None:
                self._closing = None
                self._thread = threading.Thread(target=self._run, name="fangcun-engine", daemon=True)
                self._thread.start()

    def close(self, *, drain_seconds: float = 0.0) -> None:
        """Take no more requests, let those that are there end for at most `drain_seconds`, cancel the rest."""
        with self._lock:
            self._closing = time.monotonic() + drain_seconds
            thread = self._thread
            self._lock.notify_all()
        if thread is not None:
            thread.join()
        self._thread = None

    def wake(self) -> None:
        """Look at the queue again."""
        with self._lock:
            self._lock.notify_all()

    def _run(self) -> None:
        while True:
            with self._lock:
                while not (self._incoming or self.running) and self._closing is None:
                    self._lock.wait()
                if self._closing is not None:
                    if not (self._incoming or self.running):
                        return
                    if time.monotonic() >= self._closing:
                        for writing in (*self._incoming, *self._active, self._filling):
                            if writing is not None:
                                writing.cancelled = True
            self.turn()

    def turn(self) -> None:
        """Read a stretch of one prompt, write one token of every sample. Errors of the model end the samples they meet."""
        with self._turns, evaluation_mode(self.lm.model):
            try:
                self._drop_cancelled()
                self._fill()
                self._write()
            except Exception as error:
                self._fail(error)

    def _drop_cancelled(self) -> None:
        with self._lock:
            gone = [writing for writing in self._incoming if writing.cancelled]
            for writing in gone:
                self._incoming.remove(writing)
        for writing in gone:
            writing.finish("cancelled")
        if self._filling is not None and self._filling.cancelled:
            self._filling.finish("cancelled")
            self._filling = None
        for writing in [writing for writing in self._active if writing.cancelled]:
            self._leave(writing, "cancelled")

    def _fill(self) -> None:
        """Take the next sample in, or read on its prompt; when that is read, draw its first token."""
        if self._filling is None:
            with self._lock:
                if not self._incoming or len(self._active) == self.max_batch:
                    return
                writing = self._incoming.popleft()
                self._filling = writing
            self._begin(writing)
            if self._filling is None:
                return
        writing, row = self._filling, len(self._active)
        # Alone, a prompt is read at once: nobody waits.
        count = PREFILL_TOKENS if self._active else len(writing.unread)
        part, writing.unread = writing.unread[:count], writing.unread[count:]
        if writing.scores_prompt:
            writing.score_prompt(self.rows.read(row, part, every=True), self.rows.logits)
            logits = self.rows.logits(writing.last_hidden) if not writing.unread else None
        else:
            logits = self.rows.read(row, part)
        if not writing.unread:
            assert logits is not None
            self._filling = None
            self._active.append(writing)
            self.rows.active = len(self._active)
            self._advance(writing, logits)

    def _begin(self, writing: Writing) -> None:
        row, context = len(self._active), writing.sample.context
        if writing.sample.full:
            self._filling = None
            writing.finish("length")
            return
        if writing.cut_tokens:
            warnings.warn(
                f"The prompt has {len(writing.request.prompt_ids):,} tokens, the model reads at most {self.lm.config.block_size:,}: only the last {self.lm.config.block_size:,} are used.",
                stacklevel=2,
            )
        if writing.scores_prompt:
            self.rows.forget(row)
        else:
            writing.n_cached_tokens = self.rows.borrow(row, context)
        writing.unread = context[writing.n_cached_tokens :]
        self.totals.prompt_tokens += len(context)
        self.totals.cached_tokens += writing.n_cached_tokens

    def _write(self) -> None:
        """One token of every sample that has begun."""
        for writing in list(self._active):
            if writing.sample.shorten():  # its window moves: read anew, by itself
                row = self._active.index(writing)
                self.rows.forget(row)
                self._advance(writing, self.rows.read(row, writing.sample.context))
                writing.moved = True
        staying = [writing for writing in self._active if not writing.moved]
        if len(staying) == len(self._active):
            if staying:
                self._step(staying)
            return
        for writing in self._active:
            writing.moved = False

    def _step(self, writings: list[Writing]) -> None:
        logits = self.rows.step([writing.sample.context[-1] for writing in writings])
        self.totals.steps += 1
        for writing, row in zip(writings, logits, strict=True):
            self._advance(writing, row)

    def _advance(self, writing: Writing, logits: object) -> None:
        """Draw the next token of a sample and tell it; where that was the last, the sample leaves."""
        self.totals.generated_tokens += 1
        try:
            reason = writing.advance(logits)  # type: ignore[arg-type]
        except FangcunError as error:
            self._leave(writing, "error", str(error))
            return
        except Exception as error:  # the receiver's own
            self._leave(writing, "error", f"{type(error).__name__}: {error}")
            return
        if reason is not None:
            self._leave(writing, reason)

    def _leave(self, writing: Writing, reason: str, error: str | None = None) -> None:
        """The last active row takes the place of the one that ends; the prompt being read moves up behind it."""
        row, last = self._active.index(writing), len(self._active) - 1
        self.rows.swap(row, last)
        self._active[row] = self._active[last]
        self._active.pop()
        self.rows.active = last
        if self._filling is not None:
            self.rows.swap(last, last + 1)
        writing.finish(reason, error)  # type: ignore[arg-type]

    def _fail(self, error: Exception) -> None:
        """The model itself failed (out of memory, say): everything that runs ends with the reason, what waits stays."""
        running = [*self._active, *([self._filling] if self._filling is not None else [])]
        self._active.clear()
        self._filling = None
        self.rows.active = 0
        for row in range(self.max_batch):
            self.rows.forget(row)
        text = str(error) if isinstance(error, FangcunError) else f"{type(error).__name__}: {error}"
        for writing in running:
            writing.finish("error", text)
