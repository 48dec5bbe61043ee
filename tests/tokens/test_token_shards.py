"""Promises of the files on disk and of the loader."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fangcun.artifacts import Manifest, write_artifact
from fangcun.errors import ConfigError, FangcunError
from fangcun.tokens import Batches, TokenSplit, WindowOrder, choose_dtype, fetch_windows, fixed_windows, open_split
from fangcun.tokens.format import ShardWriter


def write_tokens(
    folder: Path,
    documents: list[list[int]],
    *,
    shard_tokens: int = 1 << 20,
    vocab_size: int = 60_000,
    val: list[list[int]] | None = None,
) -> Path:
    """A tokens folder of given documents; each counts 3 bytes an id."""
    dtype = choose_dtype("auto", vocab_size)
    settings = {"dtype": dtype, "vocab_size": vocab_size, "eos_id": 0, "tokenizer_fingerprint": "f"}
    manifest = Manifest("tokens", settings=settings)
    with write_artifact(folder, manifest) as out:
        for split, texts in (("train", documents), ("val", val or [])):
            with ShardWriter(out, split, dtype, shard_tokens) as writer:
                for text in texts:
                    writer.add(np.array(text), np.array([len(text)]), np.array([3 * len(text)]))
            counts = {"tokens": writer.tokens, "documents": writer.documents, "bytes": writer.bytes}
            manifest.counts[split] = {**counts, "comparable": True, "not_comparable_because": None}
    return folder


def stream(tmp_path: Path, n_tokens: int, shard_tokens: int = 1 << 20) -> TokenSplit:
    return open_split(write_tokens(tmp_path / "tokens", [list(range(n_tokens))], shard_tokens=shard_tokens), "train")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 59_999), min_size=1, max_size=30), max_size=12),
    st.integers(1, 40),
    st.lists(st.integers(1, 4), max_size=5),
)
def test_what_is_written_is_read_whatever_the_size_of_shards(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]], shard_tokens: int, groups: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    with ShardWriter(folder, "train", "uint16", shard_tokens) as writer:
        rest = documents
        for size in [*groups, len(documents)]:
            now, rest = rest[:size], rest[size:]
            lengths = np.array([len(d) for d in now], dtype=np.int64)
            writer.add(np.array([i for d in now for i in d], dtype=np.int64), lengths, 2 * lengths)
    counts = {"tokens": writer.tokens, "documents": writer.documents, "bytes": writer.bytes}
    manifest = Manifest(
        "tokens",
        settings={"dtype": "uint16", "vocab_size": 60_000, "eos_id": 0, "tokenizer_fingerprint": ""},
        counts={"train": {**counts, "comparable": True, "not_comparable_because": None}},
        files={p.name: {} for p in folder.iterdir()},
    )
    split = TokenSplit(folder, "train", manifest)
    flat = [i for d in documents for i in d]
    assert split.read(0, split.n_tokens).tolist() == flat
    assert split.document_ends.tolist() == np.cumsum([0] + [len(d) for d in documents])[1:].tolist()
    assert split.document_bytes.tolist() == [2 * len(d) for d in documents]
    assert split.total_bytes == 2 * len(flat)
    for start in range(0, len(flat), 7):
        assert split.read(start, min(start + 11, len(flat))).tolist() == flat[start : start + 11]
    # A shard alone is whole: no shard above the limit, documents cut only where they are longer than a shard.
    for file in folder.glob("*.bin"):
        assert file.stat().st_size <= 2 * shard_tokens
        ends = np.fromfile(file.with_suffix(".idx"), "<u8")
        assert len(ends) == len(np.fromfile(file.with_suffix(".bytes"), "<u8"))
        cut_behind = file.stat().st_size // 2 - (int(ends[-1]) if len(ends) else 0)
        assert cut_behind in (0, shard_tokens)


def test_numpy_alone_reads_the_files(tmp_path: Path) -> None:
    folder = write_tokens(tmp_path / "t", [[1, 258, 0], [7, 0]], val=[[5, 0]])
    assert (folder / "train-00000.bin").read_bytes() == bytes([1, 0, 2, 1, 0, 0, 7, 0, 0, 0])
    assert np.fromfile(folder / "train-00000.idx", "<u8").tolist() == [3, 5]
    assert np.fromfile(folder / "train-00000.bytes", "<u8").tolist() == [9, 6]
    assert np.fromfile(folder / "val-00000.bin", "<u2").tolist() == [5, 0]
    large = write_tokens(tmp_path / "large", [[70_000, 0]], vocab_size=65_537)
    assert np.fromfile(large / "train-00000.bin", "<u4").tolist() == [70_000, 0]
    assert open_split(large, "train").read(0, 2).tolist() == [70_000, 0]


def test_the_type_is_chosen_by_the_vocabulary() -> None:
    assert choose_dtype("auto", 65_536) == choose_dtype("uint16", 65_536) == "uint16"
    assert choose_dtype("auto", 65_537) == choose_dtype("uint32", 100) == "uint32"
    with pytest.raises(ConfigError, match=r"tokens\.dtype: uint16 holds 65,536.*151,669.*uint32"):
        choose_dtype("uint16", 151_669)


def test_an_empty_split_is_a_split(tmp_path: Path) -> None:
    split = open_split(write_tokens(tmp_path / "t", [[1, 0]]), "val")
    assert (split.n_tokens, split.n_documents, split.total_bytes) == (0, 0, 0)
    assert len(split.document_ends) == len(split.document_bytes) == len(split.read(0, 0)) == 0
    assert fixed_windows(split, 8, None) == []


def test_opening_refuses_what_is_not_there_or_torn(tmp_path: Path) -> None:
    folder = write_tokens(tmp_path / "t", [[1, 2, 0]])
    with pytest.raises(FangcunError, match="train, val"):
        open_split(folder, "test")
    with pytest.raises(FangcunError, match="not a tokens folder"):
        open_split(tmp_path, "train")
    with pytest.raises(IndexError):
        open_split(folder, "train").read(2, 4)
    with open(folder / "train-00000.bin", "ab") as file:
        file.write(b"x")
    with pytest.raises(FangcunError, match="damaged"):
        open_split(folder, "train")


@settings(max_examples=40, deadline=None)
@given(n_tokens=st.integers(2, 80), shard_tokens=st.integers(3, 100), seed=st.integers(0, 9), data=st.data())
def test_batches_show_each_token_but_the_first_once_an_epoch_after_its_predecessors(
    tmp_path_factory: pytest.TempPathFactory, n_tokens: int, shard_tokens: int, seed: int, data: st.DataObject
) -> None:
    block_size = data.draw(st.integers(1, n_tokens - 1))
    split = stream(tmp_path_factory.mktemp("t"), n_tokens, shard_tokens=shard_tokens)
    batches = Batches(split, block_size, seed)
    assert isinstance(batches.order, WindowOrder)
    count = batches.order.samples_in_epoch(0)
    inputs, targets = batches.fetch(0, count)
    assert inputs.shape == targets.shape == (count, block_size)
    assert inputs.dtype == targets.dtype == torch.int64
    counted = targets != -100
    assert sorted(targets[counted].tolist()) == list(range(1, n_tokens))  # ids are positions here
    assert (targets[counted] == inputs[counted] + 1).all()
    assert int(counted.sum()) == n_tokens - 1


def test_a_batch_is_the_same_however_its_samples_are_fetched(tmp_path: Path) -> None:
    batches = Batches(stream(tmp_path, 500), 16, 3)
    whole = batches.fetch(20, 60)
    for size in (1, 7):
        parts = [Batches(batches.split, 16, 3).fetch(20 + i, min(size, 60 - i)) for i in range(0, 60, size)]
        for tensor, pieces in zip(whole, zip(*parts, strict=True), strict=True):
            assert torch.equal(tensor, torch.cat(pieces))


@pytest.mark.parametrize(("n_tokens", "block_size"), [(2, 1), (2, 8), (9, 8), (10, 8), (100, 8), (97, 8), (30, 64)])
def test_all_fixed_windows_predict_each_token_but_the_first_once(
    tmp_path: Path, n_tokens: int, block_size: int
) -> None:
    split = stream(tmp_path, n_tokens)
    windows = fixed_windows(split, block_size, None)
    assert windows == fixed_windows(split, block_size, 10**6)
    inputs, targets = fetch_windows(split, windows)
    assert inputs.shape[1] == min(block_size, n_tokens - 1)
    assert targets[targets != -100].tolist() == list(range(1, n_tokens))
    assert sum(window.n_targets for window in windows) == n_tokens - 1


def test_some_fixed_windows_are_evenly_spread_and_apart(tmp_path: Path) -> None:
    split = stream(tmp_path, 1001)
    windows = fixed_windows(split, 10, 7)
    assert windows == fixed_windows(split, 10, 7)
    assert len(windows) == len(set(windows)) == 7
    steps = np.diff([window.start for window in windows])
    assert steps.max() - steps.min() <= 10
    assert windows[0].start < 100
    assert windows[-1].start > 900


def test_a_training_split_too_short_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FangcunError, match=r"100 tokens.*129"):
        Batches(stream(tmp_path, 100), 128, 0)


def test_fetching_64_windows_takes_under_a_millisecond_beside_the_copy(tmp_path: Path) -> None:
    batches = Batches(stream(tmp_path, 60_000), 8, 0)
    batches.fetch(0, 64)
    best = min(_seconds(batches, i) for i in range(30))
    assert best < 0.003  # under 0.001 on an idle core; the tests share theirs


def _seconds(batches: Batches, index: int) -> float:
    began = time.perf_counter()
    batches.fetch(64 * index, 64)
    return time.perf_counter() - began
