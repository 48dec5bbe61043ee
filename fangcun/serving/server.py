"""The process: uvicorn around the application, and a shutdown that lets what runs come to its end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import uvicorn
from fastapi import FastAPI

from fangcun.errors import FangcunError
from fangcun.generation import Engine
from fangcun.serving.settings import ServerSettings

_CLOSING_SECONDS = 3
"""For connections to take their last bytes, after the engine has ended."""


class _Server(uvicorn.Server):
    """uvicorn, which keeps its door open while it drains: who comes then is told 503 and not refused."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, engine: Engine | None, settings: ServerSettings) -> None:
        super().__init__(config)
        self._app, self._engine, self._settings = app, engine, settings
        self._stuck: dict[Any, float] = {}

    async def on_tick(self, counter: int) -> bool:
        """Once a second, cut connections that have made no way for `read_seconds`: they would never end."""
        if counter % 10 == 0:
            now = time.monotonic()
            stuck = [protocol for protocol in self.server_state.connections if _is_stuck(protocol)]
            self._stuck = {protocol: self._stuck.get(protocol, now) for protocol in stuck}
            for protocol, since in self._stuck.items():
                if now - since > self._settings.read_seconds:
                    protocol.transport.abort()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.state.draining = True
        if self._engine is not None:
            end = time.monotonic() + self._settings.drain_seconds
            while (self._engine.running or self._engine.waiting) and time.monotonic() < end and not self.force_exit:
                await asyncio.sleep(0.05)
            await asyncio.to_thread(self._engine.close)
        await super().shutdown(sockets)


def _is_stuck(protocol: Any) -> bool:
    """Whether a connection was closed and its peer has yet to take the last bytes, or has yet to send the head of a request
    (after an answer, uvicorn's own keep-alive clock runs until the next one begins)."""
    if protocol.transport is None or protocol.transport.is_closing():
        return protocol.transport is not None
    cycle = protocol.cycle
    return cycle is None or (cycle.response_complete and protocol.timeout_keep_alive_task is None)


def _server(app: FastAPI, engine: Engine | None, settings: ServerSettings, log_level: str) -> _Server:
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_level=log_level,
        access_log=False,
        server_header=False,
        lifespan="off",
        http="h11",
        ws="none",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=_CLOSING_SECONDS,
        h11_max_incomplete_event_size=1 << 16,
    )
    return _Server(config, app, engine, settings)


def serve_forever(app: FastAPI, engine: Engine | None, settings: ServerSettings, door: socket.socket) -> None:
    """Serve at a socket of `open_socket` until SIGINT or SIGTERM. Starts and closes the engine."""
    if engine is not None:
        engine.start()
    try:
        # uvicorn raises the signal that ended it once more, for whoever had it before: the end is told by returning here.
        with contextlib.suppress(KeyboardInterrupt), _deaf_to(signal.SIGTERM):
            _server(app, engine, settings, "warning").run([door])
    finally:
        if engine is not None:
            engine.close()


@contextlib.contextmanager
def _deaf_to(number: int) -> Iterator[None]:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)


@contextlib.contextmanager
def serving(app: FastAPI, engine: Engine | None, settings: ServerSettings) -> Iterator[str]:
    """A server in a thread of this process, for tests and notebooks; gives its URL."""
    door = open_socket(settings)
    if engine is not None:
        engine.start()
    server = _server(app, engine, settings, "warning")
    thread = threading.Thread(target=server.run, args=([door],), name="fangcun-server", daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise FangcunError("The server did not start; its log has the reason.")
        time.sleep(0.01)
    try:
        yield url_of(door)
    finally:
        server.should_exit = True
        thread.join()
        door.close()


def open_socket(settings: ServerSettings) -> socket.socket:
    """The listening socket. Raises FangcunError with what to do when the address is taken or not ours."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    door = socket.socket(family, socket.SOCK_STREAM)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind((settings.host, settings.port))
    except OSError as error:
        door.close()
        raise FangcunError(
            f"Cannot listen at {_written(settings.host)}:{settings.port}: {error.strerror or error}. Choose another --port (0 takes a free one) or --host."
        ) from error
    door.listen(512)
    return door


def url_of(door: socket.socket) -> str:
    """Where a browser on this machine finds the server."""
    host, port = door.getsockname()[:2]
    return f"http://{_written({'0.0.0.0': '127.0.0.1', '::': '::1'}.get(host, host))}:{port}"


def _written(host: str) -> str:
    return f"[{host}]" if ":" in host else host
