"""Who comes in: this machine's names, the right key, no page of another site; and what is counted."""

from __future__ import annotations

import httpx2 as httpx
import pytest
from openai import AuthenticationError, OpenAI

from fangcun.cli_serve import is_local
from fangcun.errors import FangcunError
from fangcun.serving import ServerSettings

OK = {"model": "tiny", "prompt": "甲", "max_tokens": 2}


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1:8000", "[::1]:80", "192.168.1.5", "a.localhost"]
)
def test_names_of_this_machine_and_addresses_are_answered(server, host: str) -> None:
    assert httpx.get(f"{server.url}/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "[", ""]
)
def test_other_names_are_not(server, host: str) -> None:
    answer = httpx.post(f"{server.url}/v1/completions", headers={"Host": host}, json=OK)
    assert answer.status_code in (400, 403)
    if host and host != "[":
        assert answer.json()["error"]["code"] == "host_not_allowed"


def test_a_name_that_was_allowed_is_answered(serve_tiny) -> None:
    url = serve_tiny(allowed_hosts=("Models.Example",)).url
    assert httpx.get(f"{url}/health", headers={"Host": "models.example"}).status_code == 200


def test_a_page_of_another_site_gets_nothing(server) -> None:
    headers = {"Origin": "https://evil.example", "Content-Type": "text/plain"}  # what a page may send unasked
    answer = httpx.post(f"{server.url}/v1/completions", headers=headers, json=OK)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
    assert server.engine.running == 0
    for origin in ("null", "http://127.0.0.1:1"):
        assert httpx.get(f"{server.url}/v1/models", headers={"Origin": origin}).status_code == 403
    own = httpx.post(f"{server.url}/v1/completions", headers={"Origin": server.url}, json=OK)
    assert own.status_code == 200


def test_a_page_that_was_allowed_gets_its_answers(serve_tiny) -> None:
    url = serve_tiny(cors_origins=("https://good.example",), api_key="secret").url
    asked = {
        "Origin": "https://good.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    before = httpx.options(f"{url}/v1/completions", headers=asked)
    assert before.status_code == 200
    assert before.headers["access-control-allow-origin"] == "https://good.example"
    headers = {"Origin": "https://good.example", "Authorization": "Bearer secret"}
    answer = httpx.post(f"{url}/v1/completions", headers=headers, json=OK)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://good.example"
    assert httpx.get(f"{url}/v1/models", headers={**headers, "Origin": "https://evil.example"}).status_code == 403


def test_the_key_opens_the_api_and_nothing_else_does(serve_tiny) -> None:
    locked = serve_tiny(api_key="secret")
    right = OpenAI(base_url=locked.base_url, api_key="secret", max_retries=0)
    assert right.completions.create(**OK).choices
    for key in ("wrong", "secre", "secrets", "SECRET"):
        with pytest.raises(AuthenticationError) as caught:
            OpenAI(base_url=locked.base_url, api_key=key, max_retries=0).completions.create(**OK)
        assert caught.value.code == "invalid_api_key"
    for headers in (
        {},
        {"Authorization": "secret"},
        {"Authorization": "Basic secret"},
        {"Authorization": b"Bearer \xff"},
    ):
        for path in ("/v1/models", "/metrics", "/v1/nothing", "/api/runs"):
            assert httpx.get(f"{locked.url}{path}", headers=headers).status_code == 401, path
    assert httpx.get(f"{locked.url}/health").status_code == 200
    assert httpx.get(f"{locked.url}/page.json").json()["needs_key"] is True


def test_counts_are_told_in_prometheus_form(server) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    def counts() -> dict:
        answer = httpx.get(f"{server.url}/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        found = text_string_to_metric_families(answer.text)
        return {(s.name, *sorted(s.labels.values())): s.value for family in found for s in family.samples}

    before = counts()
    client = OpenAI(base_url=server.base_url, api_key="x", max_retries=0)
    usage = client.completions.create(**{**OK, "max_tokens": 20, "temperature": 0}).usage
    httpx.post(f"{server.url}/v1/completions", content=b"{")
    httpx.get(f"{server.url}/no/such/path")
    after = counts()

    def grown(*key: str) -> float:
        return after[key] - before.get(key, 0)

    assert grown("fangcun_requests_total", "/v1/completions", "200", "POST") == 1
    assert grown("fangcun_requests_total", "/v1/completions", "400", "POST") == 1
    assert grown("fangcun_requests_total", "404", "GET", "other") == 1
    assert grown("fangcun_generated_tokens_total") == usage.completion_tokens
    assert grown("fangcun_prompt_tokens_total") == usage.prompt_tokens
    assert grown("fangcun_time_to_first_token_seconds_count") == 1
    assert after[("fangcun_samples_running",)] == after[("fangcun_samples_waiting",)] == 0


@pytest.mark.parametrize(
    ("setting", "name"),
    [({"port": 70000}, "port"), ({"api_key": ""}, "API key"), ({"timeout_seconds": 0}, "timeout_seconds"),
     ({"max_new_tokens": 0}, "max_new_tokens"), ({"cors_origins": ("example.org",)}, "cors_origins")],
)  # fmt: skip
def test_settings_that_cannot_be_meant_are_named(setting: dict, name: str) -> None:
    with pytest.raises(FangcunError, match=name):
        ServerSettings(**setting)


def test_which_addresses_are_this_machines_alone() -> None:
    assert all(map(is_local, ["127.0.0.1", "127.1.2.3", "::1", "localhost"]))
    assert not any(map(is_local, ["0.0.0.0", "::", "192.168.1.1", "example.org"]))
