"""Promises of the block cache: right bytes or none, never beyond its bound, the least recently used block goes first."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fangcun.errors import FangcunError
from fangcun.tokens import cache as module
from fangcun.tokens.cache import BlockCache, default_cache_folder

KEYS = ["a" * 64, "b" * 64]


def content_of(key: str, index: int, size: int) -> bytes:
    return (f"{key[0]}{index}." * size).encode()[:size]


def read(cache: BlockCache, key: str, index: int, size: int) -> bytes | None:
    parts = cache.read(key, index, size, [(0, size)])
    return None if parts is None else parts[0]


@settings(max_examples=100, deadline=None)
@given(
    limit=st.integers(1, 300),
    steps=st.lists(
        st.tuples(st.sampled_from(["put", "read", "drop", "reopen", "other"]), st.integers(0, 1), st.integers(0, 5)),
        max_size=40,
    ),
)
def test_what_is_read_is_what_was_put_and_the_bound_holds(
    tmp_path_factory: pytest.TempPathFactory, limit: int, steps: list[tuple[str, int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    caches = [BlockCache(folder, limit), BlockCache(folder, limit)]
    for what, key, index in steps:
        size = 20 + 10 * index
        if what == "put":
            kept = caches[0].put(KEYS[key], index, content_of(KEYS[key], index, size))
            assert kept == (size + 4 <= limit)
            assert not kept or read(caches[0], KEYS[key], index, size) == content_of(KEYS[key], index, size)
        elif what == "drop":
            caches[0].drop(KEYS[key], index)
            assert read(caches[1], KEYS[key], index, size) is None
        elif what == "reopen":
            caches[0] = BlockCache(folder, limit)
        elif what == "other":
            caches.reverse()
        else:
            assert read(caches[0], KEYS[key], index, size) in (None, content_of(KEYS[key], index, size))
        assert caches[0].total_bytes() <= limit
        with caches[0]._locked() as ledger:
            assert ledger.total_bytes is not None and ledger.total_bytes >= caches[0].total_bytes()


def test_the_least_recently_used_block_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOUCH_SECONDS", 0.0)
    cache = BlockCache(tmp_path, 3 * 104)
    for index in range(3):
        cache.put(KEYS[0], index, bytes(100))
    assert read(cache, KEYS[0], 0, 100) is not None
    cache.put(KEYS[1], 0, bytes(100))
    assert [read(cache, KEYS[0], index, 100) is not None for index in range(3)] == [True, False, True]
    BlockCache(tmp_path, 104)  # a smaller bound is kept at once
    assert cache.total_bytes() == 104
    assert read(cache, KEYS[0], 2, 100) is not None


def test_files_in_use_are_spared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = BlockCache(tmp_path, 3 * 104)
    cache.put(KEYS[0], 0, bytes(100))
    for index in range(2):
        cache.put(KEYS[1], index, bytes(100))
    assert cache.has_room(100, [KEYS[0]]) and not cache.has_room(400)
    assert cache.put(KEYS[0], 1, bytes(100), [KEYS[0]])
    assert cache.put(KEYS[0], 2, bytes(100), [KEYS[0]])
    assert (cache.count(KEYS[0]), cache.count(KEYS[1])) == (3, 0)
    assert not cache.has_room(100, [KEYS[0]]) and not cache.put(KEYS[0], 3, bytes(100), [KEYS[0]])
    assert cache.count(KEYS[0]) == 3
    cache.drop(KEYS[0], 0)
    monkeypatch.setattr(module.time, "monotonic", lambda: 1e12)  # later: it is looked again
    assert cache.has_room(100, [KEYS[0]])


def test_files_of_others_and_half_written_blocks(tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(bytes(1000))
    (tmp_path / KEYS[0]).mkdir()
    (tmp_path / KEYS[0] / "notes.txt").write_text("mine", encoding="utf-8")
    (tmp_path / KEYS[0] / "000001.block.tmp").write_bytes(bytes(500))  # of a process that died
    cache = BlockCache(tmp_path, 104)
    for index in range(5):
        cache.put(KEYS[0], index, bytes(100))
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == [
        "000004.block", "data.bin", "lock", "notes.txt",
    ]  # fmt: skip


def test_a_torn_or_wrong_sum_is_counted_again(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, 3 * 104)
    for text in (b"", b"garbage", b"%39d\n" % 10**9):
        (tmp_path / "lock").write_bytes(text)
        for index in range(4):
            cache.put(KEYS[0], index, bytes(100))
            assert cache.total_bytes() <= 3 * 104
        assert cache.count(KEYS[0]) == 3


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = BlockCache(tmp_path, 1000)

    def full(content: bytes) -> bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "_checksum", full)
    with pytest.raises(FangcunError, match=r"cache folder .* is full: .*1,000 bytes of tokens.cache_bytes.*--tokens.cache_folder"):  # fmt: skip
        cache.put(KEYS[0], 0, bytes(100))
    assert not list(tmp_path.rglob("*.block*"))


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FangcunError, match=r"cache folder .*file.* cannot be used .*--tokens.cache_folder"):
        BlockCache(tmp_path / "file", 1000)


def test_the_cache_lies_where_the_system_keeps_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert default_cache_folder() == Path("/caches/fangcun/tokens")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_folder() == Path.home() / ".cache" / "fangcun" / "tokens"
