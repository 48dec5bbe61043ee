"""A hub of a few files, quick attempts, and no token of the developer's."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import FILES, HubServer

from fangcun.hubs import failures, sources, transport


@pytest.fixture(scope="session")
def certificates() -> ssl.SSLContext:
    """The system's, read once: that takes longer than most of these tests."""
    return ssl.create_default_context()


@pytest.fixture(autouse=True)
def quick_and_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, certificates: ssl.SSLContext) -> None:
    """No waits, no proxies, no tokens, and a folder of its own."""
    monkeypatch.setattr(failures, "WAITS_SECONDS", (0.0,) * 5)
    monkeypatch.setattr(transport, "default_certificates", lambda: certificates)
    monkeypatch.setenv("NO_PROXY", "*")
    for name in ("HF_TOKEN", "MODELSCOPE_API_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=["huggingface", "modelscope"])
def source(request: pytest.FixtureRequest) -> str:
    """Each API in turn, by the name of its hub."""
    return request.param


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub that stands where all three by name would be."""
    with HubServer(FILES) as server:
        server.large = {"data/large.parquet"}
        for name in sources.SOURCES:
            monkeypatch.setitem(sources.SOURCES, name, server.address)
        yield server
