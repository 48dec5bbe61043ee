"""Whatever is sent along the API's own description and beside it: an answer of the right shape, never a failure.

FANGCUN_FUZZ_SECONDS=300 fuzzes for so long, with other examples each time.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

import httpx2 as httpx
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
SECONDS = float(os.environ.get("FANGCUN_FUZZ_SECONDS", "0"))
SHAPE = {"message", "type", "param", "code"}


def tamed(body: Any) -> Any:
    """The same body, for the model that is there and a text of a few tokens: most would be refused for these alone."""
    if isinstance(body, dict):
        if isinstance(body.get("model"), str) and len(body["model"]) % 4 != 1:
            body["model"] = "tiny"
        for key in ("max_tokens", "max_completion_tokens", "n"):
            if type(body.get(key)) is int and body[key] > 0:
                body[key] = body[key] % 4 + 1
    return body


@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.name.lower())
def test_any_request_gets_an_answer_of_the_right_shape(serve_tiny, mode) -> None:
    server = serve_tiny(max_new_tokens=8, timeout_seconds=20)
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    asked = [operation for operation in operations if operation.path.startswith("/v1")]
    assert len(asked) == 4
    if mode.name == "NEGATIVE":  # what has no body can hardly be wrong
        asked = [operation for operation in asked if operation.method == "post"]
    statuses: dict[int, int] = {}

    def check(case: Any) -> None:
        case.body = tamed(case.body)
        answer = case.call()
        statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
        assert answer.status_code < 500, answer.content
        if answer.status_code == 200:
            if answer.headers["content-type"][0].startswith("text/event-stream"):
                assert answer.content.endswith(b"data: [DONE]\n\n")
            else:
                assert json.loads(answer.content)["object"]
        elif answer.headers["content-type"][0] == "application/json":
            error = json.loads(answer.content)
            assert set(error) == {"error"}
            assert set(error["error"]) == SHAPE
        else:  # what is no HTTP is refused before it reaches us
            assert answer.status_code == 400

    end, number = time.monotonic() + SECONDS / 2, 0
    while number == 0 or time.monotonic() < end:
        for operation in asked:
            strategy = operation.as_strategy(generation_mode=mode)
            run = given(case=strategy)(lambda case: check(case))
            seed(number if not SECONDS else time.time_ns())(
                settings(
                    max_examples=25, deadline=None, database=None, phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )(run)
            )()  # fmt: skip
        number += 1
    print(f"{mode.name}: {sum(statuses.values())} requests, by status {dict(sorted(statuses.items()))}")
    server.wait_until_idle()
    ok = httpx.post(f"{server.url}/v1/completions", json={"model": "tiny", "prompt": "甲", "max_tokens": 2})
    assert ok.status_code == 200
