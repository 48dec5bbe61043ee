"""Promises of tokens read from a URL: the same ids as from the folder, whatever is cached, damaged or read beside it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from remote_stores import TestStore, counted_tokens, lay, store

from fangcun.errors import FangcunError
from fangcun.tokens import Batches, RemoteTokens, blocks, check_tokenizer, open_split, tokens_manifest
from fangcun.tokens.cache import BlockCache

BLOCK = 64
"""Bytes of a block in these tests."""


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_BYTES", BLOCK)
        yield


@pytest.fixture
def afar() -> Iterator[type[TestStore]]:
    with store() as made:
        yield made


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=8),
    shard_tokens=st.integers(30, 300),
    vocab_size=st.sampled_from([60_000, 70_000]),
    cache_blocks=st.integers(0, 6),
    data=st.data(),
)
def test_any_rows_are_those_of_the_local_folder_however_small_the_cache(
    tmp_path_factory: pytest.TempPathFactory, lengths, shard_tokens, vocab_size, cache_blocks, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("tokens")
    local = open_split(counted_tokens(folder / "t", lengths, shard_tokens=shard_tokens, vocab_size=vocab_size), "train")
    with store():
        url = lay(folder / "t", "teststore://bucket/run/tokens")
        limit = max(1, cache_blocks * (BLOCK + 4))
        tokens = RemoteTokens(url, cache_folder=folder / "cache", cache_bytes=limit)
        remote = open_split(tokens, "train")
        assert (remote.n_tokens, remote.n_documents, remote.total_bytes) == (
            local.n_tokens, local.n_documents, local.total_bytes,
        )  # fmt: skip
        for _ in range(data.draw(st.integers(1, 4))):
            length = data.draw(st.integers(0, local.n_tokens))
            starts = data.draw(st.lists(st.integers(0, local.n_tokens - length), max_size=6))
            rows = [np.empty((len(starts), length), np.int64) for _ in range(2)]
            local.read_rows(starts, rows[0])
            remote.read_rows(starts, rows[1])
            assert np.array_equal(*rows)
            assert tokens.cache.total_bytes() <= limit
        assert np.array_equal(remote.document_ends, local.document_ends)
        assert np.array_equal(remote.document_bytes, local.document_bytes)
        assert tokens.cache.total_bytes() <= limit


def test_batches_are_those_of_the_local_folder(tmp_path: Path, afar: type[TestStore]) -> None:
    local = open_split(counted_tokens(tmp_path / "t", [700, 300], shard_tokens=800), "train")
    remote = open_split(RemoteTokens(lay(tmp_path / "t", "teststore://b/t"), cache_folder=tmp_path / "c"), "train")
    for first in (0, 40, 55):  # the last goes into the second epoch
        for mine, other in zip(Batches(local, 16, 7).fetch(first, 20), Batches(remote, 16, 7).fetch(first, 20), strict=True):  # fmt: skip
            assert torch.equal(mine, other)


def test_an_empty_split_and_reads_past_the_end(tmp_path: Path, afar: type[TestStore]) -> None:
    tokens = RemoteTokens(lay(counted_tokens(tmp_path / "t", [9]), "teststore://b/t"), cache_folder=tmp_path / "c")
    empty, train = open_split(tokens, "val"), open_split(tokens, "train")
    assert len(empty) == len(empty.document_ends) == len(empty.document_bytes) == len(empty.read(0, 0)) == 0
    for start, stop in ((5, 10), (-1, 3)):
        with pytest.raises(IndexError):
            train.read(start, stop)
    with pytest.raises(IndexError):
        train.read_rows([4], np.empty((1, 6), np.int64))
    with pytest.raises(FangcunError, match="train, val"):
        open_split(tokens, "test")


def test_a_run_folder_is_as_good_as_its_tokens_folder(tmp_path: Path, afar: type[TestStore], monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "cache"))
    lay(counted_tokens(tmp_path / "t", [50]), "teststore://bucket/run/tokens")
    for url in ("teststore://bucket/run", "teststore://bucket/run/", "teststore://bucket/run/tokens"):
        assert open_split(url, "train").read(0, 50).tolist() == list(range(50))
        assert tokens_manifest(url) == tokens_manifest(tmp_path / "t")
    assert list((tmp_path / "cache").rglob("*.block"))


def test_each_block_is_fetched_once_and_never_again_by_the_next_process(tmp_path: Path, afar: type[TestStore]) -> None:
    url = lay(counted_tokens(tmp_path / "t", [1000]), "teststore://b/t")
    for epoch in range(3):
        # Opened anew each time, as a new process would.
        split = open_split(RemoteTokens(url, cache_folder=tmp_path / "c"), "train")
        Batches(split, 16, epoch).fetch(0, 62)
        shard = [read for read in afar.reads if read[0].endswith(".bin")]
        assert sorted(start for _, start, _ in shard) == list(range(0, 2000, BLOCK))


def test_what_a_full_cache_does_not_hold_is_read_without_its_block(tmp_path: Path, afar: type[TestStore]) -> None:
    url = lay(counted_tokens(tmp_path / "t", [4000]), "teststore://b/t")
    tokens = RemoteTokens(url, cache_folder=tmp_path / "c", cache_bytes=4000 + 60 * 4)  # a half
    batches = Batches(open_split(tokens, "train"), 4, 0)
    count = batches.order.samples_in_epoch(0)
    batches.fetch(0, count // 2)
    cached = {path.name for path in _blocks(tmp_path / "c")}
    assert len(cached) > 55
    afar.reads.clear()
    for first in range(count // 2, 2 * count, 10):
        batches.fetch(first, 10)
    assert {path.name for path in _blocks(tmp_path / "c")} == cached  # nothing in use made room for what is in use
    assert sum(stop - start for _, start, stop in afar.reads) < 1.2 * 10 * count * 1.5 / 2
    # Tokens that are not in use any more do.
    other = lay(counted_tokens(tmp_path / "other", [4000], vocab_size=500), "teststore://b/other")
    split = open_split(RemoteTokens(other, cache_folder=tmp_path / "c", cache_bytes=4000 + 60 * 4), "train")
    assert split.read(0, 1500).tolist() == [i % 500 for i in range(1500)]
    afar.reads.clear()
    split.read(0, 1500)
    assert afar.reads == [] and tokens.cache.total_bytes() <= 4000 + 60 * 4


def test_the_blocks_of_a_batch_are_fetched_at_the_same_time(tmp_path: Path, afar: type[TestStore]) -> None:
    url = lay(counted_tokens(tmp_path / "t", [3000]), "teststore://b/t")
    split = open_split(RemoteTokens(url, cache_folder=tmp_path / "c"), "train")
    afar.at_once[1] = 0
    afar.delay_seconds = 0.02
    split.read(0, 3000)
    assert blocks.THREADS // 2 < afar.at_once[1] <= blocks.THREADS


def _blocks(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.block"))


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "longer", "gone", "folder"])
def test_a_damaged_block_is_fetched_again(tmp_path: Path, afar: type[TestStore], damage: str) -> None:
    url = lay(counted_tokens(tmp_path / "t", [300]), "teststore://b/t")
    open_split(RemoteTokens(url, cache_folder=tmp_path / "c"), "train").read(0, 300)
    afar.reads.clear()
    victim = _blocks(tmp_path / "c")[3]
    content = victim.read_bytes()
    if damage in ("gone", "folder"):
        victim.unlink()
        if damage == "folder":
            victim.parent.rename(tmp_path / "elsewhere")
    else:
        flipped = content[:5] + bytes([content[5] ^ 1]) + content[6:]
        victim.write_bytes({"flip": flipped, "cut": content[:-1], "empty": b"", "longer": content + b"x"}[damage])
    split = open_split(RemoteTokens(url, cache_folder=tmp_path / "c"), "train")
    assert split.read(0, 300).tolist() == list(range(300))
    assert len([r for r in afar.reads if r[0].endswith(".bin")]) == (10 if damage == "folder" else 1)
    assert victim.read_bytes() == content


def test_truncation_is_seen_by_a_process_that_has_the_block_in_use(tmp_path: Path, afar: type[TestStore]) -> None:
    url = lay(counted_tokens(tmp_path / "t", [300]), "teststore://b/t")
    split = open_split(RemoteTokens(url, cache_folder=tmp_path / "c"), "train")
    split.read(0, 300)
    for victim in _blocks(tmp_path / "c"):
        victim.write_bytes(victim.read_bytes()[:-7])
    assert split.read(0, 300).tolist() == list(range(300))


def test_what_was_damaged_on_the_way_is_found_when_a_shard_is_whole(tmp_path: Path, afar: type[TestStore]) -> None:
    url = lay(counted_tokens(tmp_path / "t", [300]), "teststore://b/t")
    told: list[str] = []
    tokens = RemoteTokens(url, cache_folder=tmp_path / "c", warn=told.append)
    split = open_split(tokens, "train")

    def flip(path: str, content: bytes) -> bytes:
        afar.on_read = None
        return bytes([content[0] ^ 1]) + content[1:]

    afar.on_read = flip
    assert split.read(0, 10).tolist() != list(range(10))  # nothing tells yet
    split.read(0, 300)
    assert len(told) == 1 and "does not match its sha256" in told[0] and "fetched again" in told[0]
    assert split.read(0, 300).tolist() == list(range(300))


def test_a_file_that_is_not_the_manifests_is_refused(tmp_path: Path, afar: type[TestStore]) -> None:
    url = lay(counted_tokens(tmp_path / "t", [300]), "teststore://b/t")
    for ending, read in (("bin", lambda s: s.read(0, 300)), ("idx", lambda s: s.document_ends)):
        path = f"/b/t/train-00000.{ending}"
        good = TestStore().cat_file(path)
        TestStore().pipe_file(path, good[:-1] + bytes([good[-1] ^ 1]))
        split = open_split(RemoteTokens(url, cache_folder=tmp_path / "c", warn=lambda _: None), "train")
        with pytest.raises(FangcunError, match=rf"train-00000\.{ending} does not match the sha256 in its manifest"):
            read(split)
        TestStore().pipe_file(path, good)
        read(split)


def test_other_tokens_at_the_same_url_are_not_mixed_with_what_is_cached(tmp_path: Path, afar: type[TestStore]) -> None:
    lay(counted_tokens(tmp_path / "a", [300]), "teststore://b/t")
    open_split(RemoteTokens("teststore://b/t", cache_folder=tmp_path / "c"), "train").read(0, 300)
    lay(counted_tokens(tmp_path / "b", [300], vocab_size=250), "teststore://b/t")
    split = open_split(RemoteTokens("teststore://b/t", cache_folder=tmp_path / "c"), "train")
    assert split.read(0, 300).tolist() == [i % 250 for i in range(300)]


def test_a_cache_that_is_too_small_is_told_with_the_sizes(tmp_path: Path, afar: type[TestStore], monkeypatch) -> None:
    url = lay(counted_tokens(tmp_path / "t", [1_000_000], vocab_size=70_000), "teststore://b/t")
    assert RemoteTokens(url, cache_folder=tmp_path / "c").warnings() == []
    (told,) = RemoteTokens(url, cache_folder=tmp_path / "c", cache_bytes=1_000_000).warnings()
    assert "4.0 MB of tokens, the cache holds 1.0 MB (tokens.cache_bytes)" in told
    assert "about 75% of them" in told and "--tokens.cache_bytes 404" in told and "read from the URL each time" in told
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 100_000}))
    (told,) = RemoteTokens(url, cache_folder=tmp_path / "c").warnings()
    assert "has room for 0.1 MB, but the cache will grow to 4.0 MB" in told


@pytest.mark.parametrize("change", ["name", "sha256", "size", "listed", "count", "kind", "torn", "split"])
def test_a_manifest_that_cannot_be_is_refused(tmp_path: Path, afar: type[TestStore], change: str) -> None:
    url = lay(counted_tokens(tmp_path / "t", [30]), "teststore://b/t")
    manifest = json.loads(TestStore().cat_file("/b/t/manifest.json"))
    entry = manifest["files"]["train-00000.bin"]
    if change == "name":
        manifest["files"]["../../../x"] = entry
    elif change == "sha256":
        entry["sha256"] = "../../x"
    elif change == "size":
        entry["size_bytes"] = 61
    elif change == "listed":
        del manifest["files"]["train-00000.idx"]
    elif change == "count":
        manifest["counts"]["train"]["tokens"] = 31
    elif change == "kind":
        manifest["kind"] = "corpus"
    elif change == "split":
        del manifest["counts"]["train"]
    raw = json.dumps(manifest).encode()
    TestStore().pipe_file("/b/t/manifest.json", raw[:50] if change == "torn" else raw)
    with pytest.raises(FangcunError, match="teststore://b/t"):
        _ = open_split(RemoteTokens(url, cache_folder=tmp_path / "c"), "train").document_ends


def test_the_tokenizer_is_compared_without_the_tokens_being_here(tmp_path: Path, afar: type[TestStore]) -> None:
    tokens = RemoteTokens(lay(counted_tokens(tmp_path / "t", [30]), "teststore://b/t"), cache_folder=tmp_path / "c")
    check_tokenizer(tokens, type("Tokenizer", (), {"fingerprint": "f", "vocab_size": 60_000})())  # type: ignore[arg-type]
    with pytest.raises(FangcunError, match="made with another tokenizer"):
        check_tokenizer(tokens, type("Tokenizer", (), {"fingerprint": "g", "vocab_size": 7})())  # type: ignore[arg-type]


READER = """
import random, sys
import numpy as np
from fangcun.tokens import RemoteTokens, blocks, open_split
blocks.BLOCK_BYTES = 4096
url, folder, limit, seed = sys.argv[1:]
split = open_split(RemoteTokens(url, cache_folder=folder, cache_bytes=int(limit)), "train")
draw = random.Random(seed)
for _ in range(150):
    starts = [draw.randrange(split.n_tokens - 64) for _ in range(8)]
    rows = np.empty((8, 64), np.int64)
    split.read_rows(starts, rows)
    assert (rows == (np.array(starts)[:, None] + np.arange(64)) % 60_000).all()
print("right")
"""


def test_a_cache_outlives_readers_that_are_killed(tmp_path: Path) -> None:
    counted_tokens(tmp_path / "t", [300_000])
    limit, draw = 100_000, random.Random(1)
    command = [sys.executable, "-c", READER, (tmp_path / "t").as_uri(), str(tmp_path / "c"), str(limit)]
    for seed in range(3):
        reader = subprocess.Popen([*command, str(seed)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while not list((tmp_path / "c").rglob("*.block")) and reader.poll() is None:
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.1))
        reader.kill()
        reader.communicate()
        assert sum(file.stat().st_size for file in (tmp_path / "c").rglob("*.block*")) <= limit
    last = subprocess.run([*command, "9"], capture_output=True, encoding="utf-8", check=False, timeout=60)
    assert last.stdout == "right\n", last.stderr
    assert BlockCache(tmp_path / "c", limit).total_bytes() <= limit


@pytest.mark.parametrize("share", [0.3, 2.0])
def test_two_processes_share_a_cache_and_its_bound(tmp_path: Path, share: float) -> None:
    counted_tokens(tmp_path / "t", [300_000], shard_tokens=100_000)
    limit = int(600_000 * share)
    command = [sys.executable, "-c", READER, (tmp_path / "t").as_uri(), str(tmp_path / "c"), str(limit)]
    readers = [
        subprocess.Popen([*command, str(seed)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
        for seed in range(2)
    ]
    highest, draw = 0, random.Random(0)
    while any(reader.poll() is None for reader in readers):
        if (tmp_path / "c" / "lock").exists():
            cache = BlockCache(tmp_path / "c", limit)
            with cache._locked():
                highest = max(highest, cache.total_bytes())
            if highest and draw.random() < 0.3:  # and somebody clears up beside them
                for block in list((tmp_path / "c").rglob("*.block"))[:1]:
                    block.unlink(missing_ok=True)
        time.sleep(0.01)
    for reader in readers:
        out, err = reader.communicate()
        assert out == "right\n", err
    assert limit / 2 < highest <= limit or share > 1
    assert BlockCache(tmp_path / "c", limit).total_bytes() <= limit
