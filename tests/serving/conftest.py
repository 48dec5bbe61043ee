"""A tiny model behind a real server on a free port."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny_server import tiny_lm

from fangcun.generation import Engine, LanguageModel

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("openai", reason="the client openai is not installed")


@dataclass
class Served:
    """A server that runs."""

    url: str
    engine: Engine
    lm: LanguageModel

    @property
    def base_url(self) -> str:
        """What OpenAI's client is given."""
        return f"{self.url}/v1"

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    def wait_until_idle(self, seconds: float = 10.0) -> None:
        """Return when the engine has nothing to do; fail after `seconds`."""
        end = time.monotonic() + seconds
        while self.engine.running or self.engine.waiting:
            assert time.monotonic() < end, f"{self.engine.running} samples run, {self.engine.waiting} wait"
            time.sleep(0.01)


Serve = Callable[..., Served]


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
