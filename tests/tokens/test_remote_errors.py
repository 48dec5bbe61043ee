"""Promises about URLs that do not answer: what heals is waited for, what does not is said with the next step."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from remote_stores import TestStore, counted_tokens, lay, store

from fangcun.errors import FangcunError
from fangcun.tokens import RemoteFolder, RemoteTokens, open_split
from fangcun.tokens import store as module
from fangcun.urls import is_url


@pytest.fixture
def afar(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[TestStore]]:
    monkeypatch.setattr(module, "RETRY_WAITS_SECONDS", (0.0, 0.01, 0.02))
    with store() as made:
        yield made


@pytest.mark.parametrize(
    ("text", "expected"),
    [("s3://b/run", True), ("memory://x", True), ("file:///a", True), ("hf://datasets/a", True), ("C://a", False),
     ("C:\\a", False), ("/a/b", False), ("s3:/b", False), ("runs/a", False), (None, False), ("", False)],
)  # fmt: skip
def test_urls_are_told_from_paths(text: str | None, expected: bool) -> None:
    assert is_url(text) == expected


def fail(times: int, error: Exception):
    """A hook that raises `times` times."""
    left = [times]

    def hook(path: str, content: bytes) -> bytes:
        if left[0]:
            left[0] -= 1
            raise error
        return content

    return hook


@pytest.mark.parametrize("error", [ConnectionResetError("reset"), TimeoutError(), OSError(5, "Input/output error")])
def test_a_lost_connection_is_tried_again_with_a_warning(
    tmp_path: Path, afar: type[TestStore], error: Exception
) -> None:
    told: list[str] = []
    url = lay(counted_tokens(tmp_path / "t", [300]), "teststore://b/t")
    split = open_split(RemoteTokens(url, cache_folder=tmp_path / "c", warn=told.append), "train")
    afar.on_read = fail(3, error)
    assert split.read(0, 300).tolist() == list(range(300))
    assert told and all("trying again in" in text and type(error).__name__ in text for text in told)
    other = open_split(RemoteTokens(url, cache_folder=tmp_path / "c", warn=told.append), "train")
    afar.on_read = fail(4, error)
    assert other.read(0, 300).tolist() == list(range(300))  # cached: nothing to ask for
    with pytest.raises(FangcunError, match=r"train-00000\.idx: the connection is lost .*tried 4 times.*run the same command again"):  # fmt: skip
        _ = other.document_ends
    assert other.document_ends.tolist() == [300]  # it came back


def test_many_threads_with_one_trouble_warn_once(tmp_path: Path, afar: type[TestStore], monkeypatch) -> None:
    monkeypatch.setattr(module, "RETRY_WAITS_SECONDS", (0.3,))
    monkeypatch.setattr("fangcun.tokens.blocks.BLOCK_BYTES", 64)
    told: list[str] = []
    url = lay(counted_tokens(tmp_path / "t", [300]), "teststore://b/t")
    split = open_split(RemoteTokens(url, cache_folder=tmp_path / "c", warn=told.append), "train")
    afar.on_read = fail(10, ConnectionResetError("reset"))
    assert split.read(0, 300).tolist() == list(range(300))
    assert len(told) == 1


def test_a_short_answer_is_no_answer(tmp_path: Path, afar: type[TestStore]) -> None:
    told: list[str] = []
    url = lay(counted_tokens(tmp_path / "t", [300]), "teststore://b/t")
    split = open_split(RemoteTokens(url, cache_folder=tmp_path / "c", warn=told.append), "train")

    def cut(path: str, content: bytes) -> bytes:
        afar.on_read = None
        return content[:-2]

    afar.on_read = cut
    assert split.read(0, 300).tolist() == list(range(300))
    assert "598 of 600 bytes arrived" in told[0]


class NoCredentialsError(Exception):
    """As botocore's."""


@pytest.mark.parametrize("error", [PermissionError(13, "Access Denied"), NoCredentialsError("Unable to locate credentials")])  # fmt: skip
def test_missing_rights_are_told_at_once(afar: type[TestStore], error: Exception) -> None:
    TestStore().pipe_file("/b/t/tokens/manifest.json", b"{}")
    afar.on_read = fail(1, error)
    with pytest.raises(FangcunError, match=r"no rights \(.*(Denied|credentials)\).*AWS_ACCESS_KEY_ID"):
        RemoteTokens("teststore://b/t")

    def refuse(path: str) -> None:
        raise error

    afar.on_write = refuse
    with pytest.raises(FangcunError, match="no rights"):
        RemoteFolder("teststore://b/t").write("a", b"")


def test_a_store_that_does_not_say_what_is_missing(tmp_path: Path, afar: type[TestStore]) -> None:
    """S3 answers 403 for a file that is not there, to whom may read but not list."""
    url = lay(counted_tokens(tmp_path / "t", [30]), "teststore://b/t")
    real = TestStore.cat_file

    def guarded(self, path: str, *more, **named) -> bytes:
        try:
            return real(self, path, *more, **named)
        except FileNotFoundError:
            raise PermissionError("Forbidden") from None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TestStore, "cat_file", guarded)
        assert open_split(RemoteTokens(url, cache_folder=tmp_path / "c"), "train").read(0, 3).tolist() == [0, 1, 2]
        with pytest.raises(FangcunError, match="no rights"):
            RemoteTokens("teststore://b/other", cache_folder=tmp_path / "c")


def test_nothing_there_is_told_with_both_places(afar: type[TestStore]) -> None:
    with pytest.raises(FangcunError, match=r"teststore://b/t holds no tokens: neither teststore://b/t/manifest.json nor teststore://b/t/tokens/manifest.json"):  # fmt: skip
        RemoteTokens("teststore://b/t/")


def test_a_shard_that_went_away_is_told(tmp_path: Path, afar: type[TestStore]) -> None:
    url = lay(counted_tokens(tmp_path / "t", [300]), "teststore://b/t")
    split = open_split(RemoteTokens(url, cache_folder=tmp_path / "c"), "train")
    del TestStore.store["/b/t/train-00000.bin"]
    with pytest.raises(FangcunError, match=r"train-00000\.bin is not there"):
        split.read(0, 5)


def test_a_bug_is_no_lost_connection(afar: type[TestStore]) -> None:
    TestStore().pipe_file("/b/a", b"{}")
    afar.on_read = fail(1, TypeError("a bug"))
    with pytest.raises(TypeError, match="a bug"):
        RemoteFolder("teststore://b").read("a")


def test_missing_packages_are_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(
        vars(importlib.import_module("fsspec.registry"))["_registry"], "s3", raising=False
    )  # where another test has found it before
    with pytest.raises(FangcunError, match=r's3:// needs a package .*pip install "fangcun\[remote\]"'):
        RemoteTokens("s3://bucket/run")
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(FangcunError, match=r'need the package fsspec.*pip install "fangcun\[remote\]"'):
        RemoteTokens("memory://bucket/run")


@pytest.mark.parametrize("url", ["nosuch://bucket/run", "memory://", "file:///"])
def test_urls_that_cannot_be_are_told(url: str) -> None:
    with pytest.raises(FangcunError, match="Expected a URL such as s3://bucket/run"):
        RemoteTokens(url)
