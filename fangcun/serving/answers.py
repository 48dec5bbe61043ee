"""One generation to one HTTP answer: whole or as a stream of events, ended early when its reader goes away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

import orjson
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fangcun.serving.bridge import Generation
from fangcun.serving.choices import Choices, Update
from fangcun.serving.errors import ApiError, JsonResponse
from fangcun.serving.metrics import Metrics
from fangcun.serving.schema import Call
from fangcun.serving.shapes import Shape

CLIENT_GONE = 499
"""Status in the metrics of a request that nobody waits for any more (nginx's)."""


class Answer:
    """A generation that has been submitted, the choices that come of it and the shape that they are told in."""

    def __init__(self, generation: Generation, choices: Choices, shape: Shape, metrics: Metrics) -> None:
        self.generation, self.choices, self.shape, self._metrics = generation, choices, shape, metrics

    async def updates(self) -> AsyncIterator[list[Update]]:
        """What came, counted. Raises ApiError."""
        first: float | None = None
        async for events in self.generation.batches():
            now = time.monotonic()
            if first is None:
                first = now
                self._metrics.first_token.observe(now - self.generation.started)
            yield list(self.choices.updates(events))
        now = time.monotonic()
        self._metrics.duration.observe(now - self.generation.started)
        if first is not None and now > first and self.choices.completion_tokens > 1:
            self._metrics.speed.observe(self.choices.completion_tokens / (now - first))

    async def whole(self, http: HttpRequest) -> Response:
        """All at once; nothing more is written when the client goes away."""
        gone = asyncio.ensure_future(_disconnected(http.receive))
        work = asyncio.ensure_future(self._collect())
        try:
            await asyncio.wait((gone, work), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return JsonResponse(self.shape.whole(work.result(), self.choices.usage))
            self._metrics.abandoned.inc()
            return Response(status_code=CLIENT_GONE)
        finally:
            self.generation.cancel()
            for task in (gone, work):
                task.cancel()
            await asyncio.gather(gone, work, return_exceptions=True)

    async def _collect(self) -> list[Update]:
        return [update async for updates in self.updates() for update in updates]

    async def chunks(self, call: Call) -> AsyncGenerator[bytes, None]:
        """Server-sent events: chunks, an error where one comes too late for a status, and the mark of the end."""
        counted = bool(call.stream_options and call.stream_options.include_usage)
        opened: set[int] = set()
        try:
            async for updates in self.updates():
                lines = []
                for update in updates:
                    if update.index not in opened:
                        opened.add(update.index)
                        if (opening := self.shape.opening(update.index)) is not None:
                            lines.append(_event(self.shape.chunk(opening, None, counted=counted)))
                    lines.append(_event(self.shape.chunk(self.shape.delta(update), None, counted=counted)))
                if lines:
                    yield b"".join(lines)
            if counted:
                yield _event(self.shape.chunk(None, self.choices.usage, counted=True))
        except ApiError as error:
            yield _event(error.body)
        except Exception:
            logging.getLogger("fangcun.serving").exception("a stream failed")
            yield _event(ApiError(500, "The server failed at this request; its log has the details.").body)
        yield b"data: [DONE]\n\n"


class EventStream(Response):
    """Sends the chunks of an answer; a client that goes away, or takes nothing for `read_seconds`, frees the engine."""

    def __init__(self, answer: Answer, call: Call, metrics: Metrics, read_seconds: float) -> None:
        super().__init__(headers={"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-store", "X-Accel-Buffering": "no"})  # fmt: skip
        del self.headers["content-length"]
        self._answer, self._call, self._metrics, self._read_seconds = answer, call, metrics, read_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(_disconnected(receive))
        work = asyncio.ensure_future(self._send_all(send))
        try:
            await asyncio.wait((gone, work), return_when=asyncio.FIRST_COMPLETED)
            if not work.done() or not work.result():
                self._metrics.abandoned.inc()
        finally:
            self._answer.generation.cancel()
            for task in (gone, work):
                task.cancel()
            await asyncio.gather(gone, work, return_exceptions=True)

    async def _send_all(self, send: Send) -> bool:
        """Whether all of it was taken."""
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        async with contextlib.aclosing(self._answer.chunks(self._call)) as chunks:
            try:
                await asyncio.wait_for(send(start), self._read_seconds)
                async for chunk in chunks:
                    body = {"type": "http.response.body", "body": chunk, "more_body": True}
                    await asyncio.wait_for(send(body), self._read_seconds)
                await asyncio.wait_for(send({"type": "http.response.body", "body": b""}), self._read_seconds)
            except (asyncio.TimeoutError, OSError):
                return False
        return True


async def _disconnected(receive: Receive) -> None:
    """Returns when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _event(body: Mapping[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(body) + b"\n\n"
