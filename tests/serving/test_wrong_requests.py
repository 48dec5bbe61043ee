"""What cannot be served is told in OpenAI's shape, with the place and what to do, and the server serves on."""

from __future__ import annotations

import json
import socket
from typing import Any

import httpx2 as httpx
import pytest
from openai import BadRequestError, NotFoundError, OpenAI, RateLimitError

COMPLETE, CHAT = "/v1/completions", "/v1/chat/completions"
OK = {"model": "tiny", "prompt": "甲", "max_tokens": 2}
TALK = {"model": "tiny", "messages": [{"role": "user", "content": "甲"}], "max_tokens": 2}


@pytest.fixture(scope="module")
def http(server):
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


def check_shape(status: int, body: bytes, expected: int) -> dict[str, Any]:
    assert status == expected, body
    said = json.loads(body)
    assert set(said) == {"error"}
    assert set(said["error"]) == {"message", "type", "param", "code"}
    assert said["error"]["message"]
    return said["error"]


BROKEN = [
    b"", b"{", b"[1, 2]", b"null", b'"text"', b"1", b"{]}", b"\xff\xfe{}", b'{"model": "tiny", "prompt": "\xe5\x8d"}',
    b'{"model": "tiny", "prompt": "\\ud800"}', b'{"model": "tiny", "prompt": "a", "temperature": NaN}',
    b'{"prompt": ' + b"[" * 5000 + b"]" * 5000 + b"}", b"model=tiny&prompt=a", b"\x00" * 64,
]  # fmt: skip


@pytest.mark.parametrize("body", BROKEN, ids=range(len(BROKEN)))
@pytest.mark.parametrize("path", [COMPLETE, CHAT])
def test_what_is_no_json_object_is_refused(http, path: str, body: bytes) -> None:
    answer = http.post(path, content=body)
    assert check_shape(answer.status_code, answer.content, 400)["type"] == "invalid_request_error"
    assert http.post(COMPLETE, json=OK).status_code == 200


WRONG = [
    (COMPLETE, {"model": 1}, "model", "string"),
    (COMPLETE, {"max_tokens": "ten"}, "max_tokens", "integer"),
    (COMPLETE, {"max_tokens": 1.5}, "max_tokens", "integer"),
    (COMPLETE, {"max_tokens": True}, "max_tokens", "integer"),
    (COMPLETE, {"max_tokens": -1}, "max_tokens", "0"),
    (COMPLETE, {"max_tokens": 10**9}, "max_tokens", "2,048"),
    (COMPLETE, {"max_tokens": 10**30}, "max_tokens", "integer"),
    (COMPLETE, {"temperature": 3}, "temperature", "2"),
    (COMPLETE, {"temperature": "hot"}, "temperature", "number"),
    (COMPLETE, {"top_p": 0}, "top_p", "greater than 0"),
    (COMPLETE, {"top_k": -1}, "top_k", "0"),
    (COMPLETE, {"min_p": 2}, "min_p", "1"),
    (COMPLETE, {"repetition_penalty": 0}, "repetition_penalty", "0"),
    (COMPLETE, {"n": 0}, "n", "1"),
    (COMPLETE, {"n": 1000}, "n", "128"),
    (COMPLETE, {"n": 100, "prompt": ["a"] * 100}, "n", "10,000"),
    (COMPLETE, {"seed": 2**70}, "seed", "integer"),
    (COMPLETE, {"logprobs": 21}, "logprobs", "20"),
    (COMPLETE, {"logprobs": 20, "n": 100, "max_tokens": 2000}, "logprobs", "4,200,000"),
    (COMPLETE, {"logprobs": True}, "logprobs", "integer"),
    (COMPLETE, {"stop": [1]}, "stop", "list of texts"),
    (COMPLETE, {"stop": ""}, "stop", "at least one character"),
    (COMPLETE, {"stop": ["a"] * 100}, "stop", "64"),
    (COMPLETE, {"prompt": 5}, "prompt", "list of token ids"),
    (COMPLETE, {"prompt": []}, "prompt", "empty list"),
    (COMPLETE, {"prompt": ["a", 1]}, "prompt", "list of token ids"),
    (COMPLETE, {"prompt": [-1]}, "prompt", "list of token ids"),
    (COMPLETE, {"prompt": [100_000]}, None, "100000"),
    (COMPLETE, {"stream": "yes"}, "stream", "boolean"),
    (COMPLETE, {"stream_options": {"include_usage": True}}, "stream_options", "stream"),
    (COMPLETE, {"stream": True, "stream_options": {"usage": True}}, "stream_options.usage", "not a key"),
    (COMPLETE, {"best_of": 5}, "best_of", "all n samples"),
    (COMPLETE, {"suffix": "end"}, "suffix", "not supported"),
    (COMPLETE, {"logit_bias": {"5": 1}}, "logit_bias", "not supported"),
    (COMPLETE, {"temprature": 1}, "temprature", "Did you mean 'temperature'?"),
    (COMPLETE, {"chat_template": "{{ 1 }}"}, "chat_template", "not a key"),
    (CHAT, {"chat_template": "{{ 1 }}"}, "chat_template", "not a key"),
    (CHAT, {"messages": []}, "messages", "at least 1"),
    (CHAT, {"messages": "hello"}, "messages", "list"),
    (CHAT, {"messages": [{"role": "king", "content": "a"}]}, "messages[0].role", "system"),
    (CHAT, {"messages": [{"role": "user"}]}, "messages[0].content", "a text, or a list of parts"),
    (CHAT, {"messages": [{"role": "user", "content": None}]}, "messages[0].content", "a text"),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages[0].content", "images"),
    (CHAT, {"tools": [{"type": "function"}]}, "tools", "not supported"),
    (CHAT, {"response_format": {"type": "json_object"}}, "response_format", "not supported"),
    (CHAT, {"top_logprobs": 2}, "top_logprobs", "logprobs"),
    (CHAT, {"logprobs": 3}, "logprobs", "boolean"),
    (CHAT, {"max_completion_tokens": 3}, "max_tokens", "differ"),
    (CHAT, {"prompt": "a"}, "prompt", "not a key"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "change", "param", "words"), WRONG, ids=[str(w[1])[:40] for w in WRONG])
def test_a_wrong_value_is_named(http, path: str, change: dict, param: str | None, words: str) -> None:
    answer = http.post(path, json={**(OK if path == COMPLETE else TALK), **change})
    error = check_shape(answer.status_code, answer.content, 400)
    assert error["param"] == param
    assert words in error["message"]


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_a_missing_key_is_named(http, missing: str) -> None:
    answer = http.post(CHAT, json={key: value for key, value in TALK.items() if key != missing})
    error = check_shape(answer.status_code, answer.content, 400)
    assert (error["param"], error["code"]) == (missing, "missing_required_parameter")


def test_labels_and_what_asks_for_nothing_are_taken(http) -> None:
    labels = {"user": "u", "metadata": {"a": "b"}, "store": False, "tools": [], "response_format": {"type": "text"}}
    nulls = {"stop": None, "seed": None, "n": None, "logit_bias": None, "temperature": None, "stream": None}
    answer = http.post(CHAT, json={**TALK, **labels, **nulls})
    assert answer.status_code == 200, answer.content
    assert http.post(COMPLETE, json={**OK, "best_of": 1, "suffix": None}).status_code == 200


def test_a_prompt_that_the_model_cannot_read_whole_is_refused_with_the_numbers(server) -> None:
    client = OpenAI(base_url=server.base_url, api_key="none", max_retries=0)
    with pytest.raises(BadRequestError, match=r"257 tokens.*at most 256") as caught:
        client.completions.create(model="tiny", prompt="x" * 257)
    assert caught.value.code == "context_length_exceeded"
    assert client.completions.create(model="tiny", prompt="x" * 256, max_tokens=1).choices
    with pytest.raises(BadRequestError) as caught:
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "长" * 1000}])
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.param == "messages"


def test_an_unknown_model_is_not_found(server) -> None:
    client = OpenAI(base_url=server.base_url, api_key="none", max_retries=0)
    for ask in (
        lambda: client.completions.create(model="gpt-5", prompt="a"),
        lambda: client.chat.completions.create(model="../etc/passwd", messages=TALK["messages"]),
        lambda: client.models.retrieve("gpt-5"),
    ):
        with pytest.raises(NotFoundError, match="'tiny'") as caught:
            ask()
        assert caught.value.code == "model_not_found"


def test_unknown_paths_and_methods_have_the_shape_too(http) -> None:
    answer = http.get("/v1/chat/completion")
    assert "/v1/chat/completions" in check_shape(answer.status_code, answer.content, 404)["message"]
    answer = http.get(COMPLETE)
    assert "POST" in check_shape(answer.status_code, answer.content, 405)["message"]
    assert answer.headers["allow"] == "POST"
    for path in ("/v1/embeddings", "/v1/../../etc/passwd", "/static/../../errors.py", "/v1/models/%2e%2e%2f%00"):
        answer = http.post(path, json={})
        check_shape(answer.status_code, answer.content, answer.status_code)
        assert answer.status_code in (404, 405)


def test_a_body_beyond_the_limit_is_refused_before_it_is_read(serve_tiny) -> None:
    small = serve_tiny(max_body_bytes=1000)
    with httpx.Client(base_url=small.url) as http:
        answer = http.post(COMPLETE, json={**OK, "prompt": "x" * 2000})
        assert "1,000" in check_shape(answer.status_code, answer.content, 413)["message"]
        answer = http.post(COMPLETE, content=iter([b"x" * 600] * 2))  # chunked: no length is told
        check_shape(answer.status_code, answer.content, 413)
        assert http.post(COMPLETE, json=OK).status_code == 200
    # A length is claimed and nothing sent: the answer does not wait for it.
    with socket.create_connection(("127.0.0.1", small.port), timeout=10) as raw:
        raw.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 413")


def test_a_full_queue_says_when_to_come_again(serve_tiny) -> None:
    busy = serve_tiny(max_batch=1, max_waiting=1, step_seconds=0.02)
    long = {"model": "tiny", "prompt": "甲", "max_tokens": 2048, "seed": 1}
    client = OpenAI(base_url=busy.base_url, api_key="none", max_retries=0, timeout=60)
    streams = [client.completions.create(stream=True, **long) for _ in range(2)]
    with pytest.raises(RateLimitError) as caught:
        for _ in range(20):
            streams.append(client.completions.create(stream=True, **long))
    assert int(caught.value.response.headers["retry-after"]) >= 1
    assert caught.value.code == "queue_full"
    for stream in streams:
        stream.close()
    busy.wait_until_idle()
    assert client.completions.create(**OK).choices


def test_a_request_that_takes_too_long_is_ended(serve_tiny) -> None:
    short = serve_tiny(timeout_seconds=0.3, step_seconds=0.02)
    long = {**OK, "max_tokens": 2048, "seed": 1, "n": 8}
    with httpx.Client(base_url=short.url, timeout=30) as http:
        answer = http.post(COMPLETE, json=long)
        error = check_shape(answer.status_code, answer.content, 504)
        assert error["code"] == "timeout"
        answer = http.post(COMPLETE, json={**long, "stream": True})
        assert answer.status_code == 200
        events = [line for line in answer.text.split("\n\n") if line]
        assert json.loads(events[-2].removeprefix("data: "))["error"]["code"] == "timeout"
        assert events[-1] == "data: [DONE]"


def test_a_model_that_fails_ends_the_request_and_not_the_server(serve_tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = serve_tiny()

    def fail(*args: object) -> None:
        raise RuntimeError("CUDA out of memory")

    with httpx.Client(base_url=broken.url, timeout=30) as http:
        with monkeypatch.context() as patch:
            patch.setattr(broken.engine.rows, "step", fail)
            answer = http.post(COMPLETE, json={**OK, "max_tokens": 20})
            assert "out of memory" in check_shape(answer.status_code, answer.content, 500)["message"]
            answer = http.post(COMPLETE, json={**OK, "max_tokens": 20, "stream": True})
            assert '"code":"generation_failed"' in answer.text
        assert http.post(COMPLETE, json=OK).status_code == 200


GARBAGE = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"\xff" * 200 + b"\r\n\r\n", b"POST /v1/completions HTTP/9.9\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"x: " + b"y" * 100_000 + b"\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{\"model\":",
]  # fmt: skip


def test_garbage_on_the_wire_does_no_harm(server, http) -> None:
    for words in GARBAGE:
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw:
            raw.sendall(words)
            raw.shutdown(socket.SHUT_WR)
            answer = b""
            while part := raw.recv(4096):
                answer += part
            assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), (words[:40], answer)
    assert http.post(COMPLETE, json=OK).status_code == 200
