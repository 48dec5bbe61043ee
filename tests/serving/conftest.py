"""A tiny model behind a real server on a free port."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tiny_server import Serve, Served, tiny_lm

from fangcun.generation import Engine

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("openai", reason="the client openai is not installed")


@pytest.fixture(scope="module")
def serve_tiny() -> Iterator[Serve]:
    """Start servers for a module: serve_tiny(chat=True, block_size=256, max_batch=4, max_waiting=…, runs=…,
    step_seconds=…, **settings). step_seconds: how long each step of the engine is held up."""
    from fangcun.serving import ServerSettings, create_app, serving

    with ExitStack() as stack:

        def start(
            *, chat: bool = True, block_size: int = 256, max_batch: int = 4, max_waiting: int = 256,
            runs: Path | None = None, step_seconds: float = 0.0, **settings: object,
        ) -> Served:  # fmt: skip
            lm = tiny_lm(chat=chat, block_size=block_size)
            engine = Engine(lm, max_batch=max_batch, max_waiting=max_waiting)
            if step_seconds:
                step = engine.rows.step

                def slow(ids: list[int]):
                    time.sleep(step_seconds)
                    return step(ids)

                engine.rows.step = slow  # type: ignore[method-assign]
            limits = ServerSettings(port=0, **settings)  # type: ignore[arg-type]
            app = create_app(engine, model_id="tiny", settings=limits, runs=runs)
            return Served(stack.enter_context(serving(app, engine, limits)), engine, lm)

        yield start


@pytest.fixture(scope="module")
def server(serve_tiny: Serve) -> Served:
    """A server of a tiny model that knows conversations."""
    return serve_tiny()
