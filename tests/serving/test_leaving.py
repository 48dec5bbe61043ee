"""Clients that go away, that read slowly, and a server that goes down: the engine is free afterwards, nobody hangs."""

from __future__ import annotations

import json
import socket
import threading
import time
from pathlib import Path

import httpx2 as httpx
import pytest
from openai import OpenAI

LONG = {"model": "tiny", "prompt": "甲", "max_tokens": 2048, "seed": 1}


def post(port: int, body: dict) -> socket.socket:
    """A connection on which a completion has been asked for."""
    raw = socket.create_connection(("127.0.0.1", port), timeout=10)
    data = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
    raw.sendall(head.encode() + data)
    return raw


@pytest.fixture(scope="module")
def slow(serve_tiny):
    """A server whose model writes fifty tokens a second, so that there is something to end."""
    return serve_tiny(step_seconds=0.02, read_seconds=1.0, max_new_tokens=100_000)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_frees_the_engine(slow, stream: bool) -> None:
    before = slow.engine.totals.generated_tokens
    raws = [post(slow.port, {**LONG, "stream": stream, "n": 3}) for _ in range(4)]  # more than run at once
    while slow.engine.running < 4:
        time.sleep(0.01)
    for raw in raws:
        raw.close()
    slow.wait_until_idle(5)
    assert slow.engine.totals.generated_tokens - before < 500
    assert OpenAI(base_url=slow.base_url, api_key="x").completions.create(**{**LONG, "max_tokens": 1}).choices
    assert "fangcun_abandoned_total 0.0" not in httpx.get(f"{slow.url}/metrics").text


def test_a_client_that_goes_away_in_the_middle_of_its_body_does_no_harm(slow) -> None:
    raw = socket.create_connection(("127.0.0.1", slow.port), timeout=10)
    raw.sendall(b'POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n{"model": "ti')
    raw.close()
    assert httpx.get(f"{slow.url}/health").json()["status"] == "ready"


def test_a_body_that_does_not_arrive_is_not_waited_for(slow) -> None:
    with socket.create_connection(("127.0.0.1", slow.port), timeout=10) as raw:
        raw.sendall(b'POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n{"model": "ti')
        assert raw.recv(100).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(("words", "after_another"), [(b"POST / HTTP/1.1\r\nHost: loc", False), (b"GET", True)])
def test_a_head_that_does_not_arrive_is_not_waited_for(slow, words: bytes, after_another: bool) -> None:
    with socket.create_connection(("127.0.0.1", slow.port), timeout=10) as raw:
        if after_another:
            raw.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            raw.recv(4096)
        raw.sendall(words)
        started = time.monotonic()
        while raw.recv(4096):
            pass
        assert time.monotonic() - started < 8


def test_a_connection_that_is_kept_is_kept(slow) -> None:
    with httpx.Client(base_url=slow.url) as http:
        http.get("/health")
        time.sleep(2.5)  # more than read_seconds
        opened = len(list(Path("/dev/fd").iterdir()))
        http.get("/health")
        assert len(list(Path("/dev/fd").iterdir())) == opened


def test_a_stream_can_be_closed_in_its_middle(slow) -> None:
    client = OpenAI(base_url=slow.base_url, api_key="x", max_retries=0)
    with client.completions.create(stream=True, **LONG) as stream:
        for _, _ in zip(range(3), stream, strict=False):
            pass
    slow.wait_until_idle(5)


def test_a_reader_that_stops_reading_holds_up_nobody_and_is_left(serve_tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    from fangcun.serving import server

    def small_buffers(settings) -> socket.socket:
        door = open_socket(settings)
        door.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return door

    open_socket = server.open_socket
    monkeypatch.setattr(server, "open_socket", small_buffers)
    quick = serve_tiny(read_seconds=0.5, max_new_tokens=1_000_000)
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect(("127.0.0.1", quick.port))
    data = json.dumps({**LONG, "stream": True, "n": 24, "logprobs": 20}).encode()
    raw.sendall(
        f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data
    )
    started = time.monotonic()
    while "fangcun_abandoned_total 1.0" not in httpx.get(f"{quick.url}/metrics").text:
        assert time.monotonic() - started < 30
        time.sleep(0.05)
    quick.wait_until_idle(5)
    assert httpx.post(f"{quick.url}/v1/completions", json={**LONG, "max_tokens": 5}).status_code == 200
    opened = len(list(Path("/dev/fd").iterdir()))
    # The connection is cut as well, though much of what it holds was never read.
    started = time.monotonic()
    while len(list(Path("/dev/fd").iterdir())) >= opened:
        assert time.monotonic() - started < 10
        time.sleep(0.05)
    raw.close()


def test_a_server_that_goes_down_lets_what_runs_end_and_takes_nothing_new() -> None:
    from tiny_server import tiny_lm

    from fangcun.generation import Engine
    from fangcun.serving import ServerSettings, create_app, serving

    engine, settings = Engine(tiny_lm()), ServerSettings(port=0, drain_seconds=20)
    step = engine.rows.step
    engine.rows.step = lambda ids: (time.sleep(0.02), step(ids))[1]  # type: ignore[method-assign]
    app = create_app(engine, model_id="tiny", settings=settings)
    down = serving(app, engine, settings)
    url = down.__enter__()
    client = OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0)
    stream = client.completions.create(stream=True, **{**LONG, "max_tokens": 60, "temperature": 0})
    next(stream)
    leaving = threading.Thread(target=down.__exit__, args=(None, None, None))
    leaving.start()
    while not app.state.draining:
        time.sleep(0.01)
    health = httpx.get(f"{url}/health")
    assert (health.status_code, health.json()["status"]) == (503, "draining")
    refused = httpx.post(f"{url}/v1/completions", json=LONG)
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "shutting_down"
    assert int(refused.headers["retry-after"]) >= 1
    chunks = list(stream)
    assert chunks[-1].choices[0].finish_reason in ("length", "stop")
    leaving.join(10)
    assert not leaving.is_alive()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")


def test_what_does_not_end_in_time_is_ended_with_an_error() -> None:
    from openai import APIError
    from tiny_server import tiny_lm

    from fangcun.generation import Engine
    from fangcun.serving import ServerSettings, create_app, serving

    engine, settings = Engine(tiny_lm()), ServerSettings(port=0, drain_seconds=0)
    step = engine.rows.step
    engine.rows.step = lambda ids: (time.sleep(0.05), step(ids))[1]  # type: ignore[method-assign]
    with serving(create_app(engine, model_id="tiny", settings=settings), engine, settings) as url:
        client = OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0)
        stream = client.completions.create(stream=True, **{**LONG, "temperature": 0})
        next(stream)
    with pytest.raises(APIError, match="going down"):
        list(stream)


def test_a_request_whose_body_arrives_while_the_server_goes_down_is_told_so() -> None:
    from tiny_server import tiny_lm

    from fangcun.generation import Engine
    from fangcun.serving import ServerSettings, create_app, serving

    engine, settings = Engine(tiny_lm()), ServerSettings(port=0)
    app = create_app(engine, model_id="tiny", settings=settings)
    down = serving(app, engine, settings)
    url = down.__enter__()
    data = json.dumps({**LONG, "max_tokens": 1}).encode()
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=10) as raw:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
        raw.sendall(head.encode() + data[:5])
        time.sleep(0.2)  # the head is read, the guard has let it in
        leaving = threading.Thread(target=down.__exit__, args=(None, None, None))
        leaving.start()
        while not app.state.draining or engine._thread is not None:
            time.sleep(0.01)
        raw.sendall(data[5:])
        answer = raw.recv(4000)
    assert answer.startswith(b"HTTP/1.1 503") and b"retry-after: 5" in answer
    leaving.join(10)
    assert not leaving.is_alive()
