"""Promises of a mixture's order: shares hold everywhere, no source skips or repeats, changes touch nothing before them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fangcun.config import CorpusConfig, SourceConfig, TokenizerConfig, TokensConfig
from fangcun.corpus import build_corpus, iter_split
from fangcun.errors import FangcunError
from fangcun.tokenizer import Tokenizer, build_tokenizer
from fangcun.tokens import Batches, MixedOrder, Phase, WindowOrder, open_split, pack, quotas
from fangcun.tokens.mixture import PERIOD

NAMES = ("web", "books", "poems")


@st.composite
def orders(draw: st.DrawFn) -> MixedOrder:
    sizes = draw(st.lists(st.integers(12, 300), min_size=3, max_size=3))
    stops = np.cumsum(sizes).tolist()
    sources = {name: (stop - size, stop) for name, size, stop in zip(NAMES, sizes, stops, strict=True)}
    phases, first = [], 0
    for _ in range(draw(st.integers(1, 4))):
        shares = draw(st.lists(st.sampled_from([0, 1, 2, 7, 0.3]), min_size=3, max_size=3).filter(any))
        phases.append(Phase(first, quotas(shares, NAMES)))
        first += draw(st.integers(1, 200))
    return MixedOrder(sources, draw(st.integers(1, 11)), draw(st.integers(0, 2**66)), phases)


@settings(max_examples=60, deadline=None)
@given(orders(), st.integers(0, 500), st.integers(1, 300))
def test_each_source_reads_its_own_windows_in_order_without_a_gap(order: MixedOrder, first: int, count: int) -> None:
    sources, numbers = order.locate(0, first + count)
    for source, name in enumerate(order.names):
        mine = numbers[sources == source]
        assert mine.tolist() == list(range(len(mine)))
        assert order.counts(first)[source] == (sources[:first] == source).sum(), name
    together = order.windows(first, count)
    for place, (source, number) in enumerate(zip(sources[first:].tolist(), numbers[first:].tolist(), strict=True)):
        own = order.orders[source]
        assert own is not None
        window = own.window(number)
        shift = int(order._starts[source])
        found = tuple(int(column[place]) - shift for column in together)
        assert found == (window.start, window.first_target, window.last_target)
        assert found[0] >= 0 and found[0] + order.block_size + 1 <= own.n_tokens


@settings(max_examples=60, deadline=None)
@given(orders(), st.integers(0, 400), st.integers(1, 200))
def test_samples_are_the_same_however_they_are_asked_for(order: MixedOrder, first: int, count: int) -> None:
    whole = np.stack(order.windows(first, count))
    single = np.concatenate([np.stack(order.windows(first + i, 1)) for i in range(count)], axis=1)
    assert np.array_equal(whole, single)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=6), st.integers(0, 3 * PERIOD), st.integers(1, 5000))
def test_shares_hold_in_every_stretch(shares: list[float], first: int, count: int) -> None:
    names = [str(n) for n in range(len(shares))]
    phase = Phase(0, quotas(shares, names))
    assert sum(phase.quotas) == PERIOD
    found = phase.counts(first + count) - phase.counts(first)
    wanted = np.array(shares) / sum(shares) * count
    assert np.abs(found - wanted).max() <= 1 + len(shares)


@settings(max_examples=40, deadline=None)
@given(orders(), st.integers(1, 300), st.data())
def test_a_change_leaves_what_was_read_before_it(order: MixedOrder, at: int, data: st.DataObject) -> None:
    kept = [phase for phase in order.phases if phase.first_sample < at]
    shares = data.draw(st.lists(st.sampled_from([0, 1, 5]), min_size=3, max_size=3).filter(any))
    sources = {
        name: (int(start), int(start) + (own.n_tokens if own else 12))
        for name, start, own in zip(order.names, order._starts, order.orders, strict=True)
    }
    seed = 5
    before = MixedOrder(sources, order.block_size, seed, order.phases)
    after = MixedOrder(sources, order.block_size, seed, [*kept, Phase(at, quotas(shares, NAMES))])
    assert np.array_equal(np.stack(before.windows(0, at)), np.stack(after.windows(0, at)))


def test_one_source_alone_is_read_like_a_stream_of_its_own() -> None:
    order = MixedOrder({"a": (0, 50), "b": (50, 150)}, 8, 3, [Phase(0, quotas([0, 1], "ab"))])
    lone = MixedOrder({"b": (0, 100)}, 8, 3, [Phase(0, (PERIOD,))])
    assert np.array_equal(np.stack(order.windows(0, 40)), np.stack(lone.windows(0, 40)) + 50)
    assert isinstance(lone.orders[0], WindowOrder) and order.epochs(12)["a"] == 0 and 0.9 < order.epochs(12)["b"] < 1


def test_a_source_without_a_window_and_a_share_without_a_place_are_named() -> None:
    with pytest.raises(FangcunError, match=r"source poems has 5 training tokens, but a sample needs 9"):
        MixedOrder({"web": (0, 90), "poems": (90, 95)}, 8, 0, [Phase(0, quotas([1, 1], ["web", "poems"]))])
    MixedOrder({"web": (0, 90), "poems": (90, 95)}, 8, 0, [Phase(0, quotas([1, 0], ["web", "poems"]))])
    with pytest.raises(FangcunError, match=r"share of poems is 1e-06"):
        quotas([1, 1e-6], ["web", "poems"])


def test_packed_sources_lie_where_the_manifest_says(tmp_path: Path) -> None:
    for name, words in (("a", "甲乙丙丁"), ("b", "戊己庚辛"), ("c", "壬癸子丑")):
        (tmp_path / f"{name}.txt").write_text("\n\n".join(words * (n % 5 + 1) for n in range(90)), encoding="utf-8")
    sources = {name: SourceConfig([str(tmp_path / f"{name}.txt")]) for name in "abc"}
    build_corpus(CorpusConfig(sources=sources, txt_split="blank_lines"), tmp_path / "corpus")
    build_tokenizer(TokenizerConfig(kind="char"), tmp_path / "corpus", tmp_path / "tokenizer")
    tokenizer = Tokenizer.load(tmp_path / "tokenizer")
    pack(tmp_path / "corpus", tmp_path / "tokenizer", tmp_path / "tokens", TokensConfig(shard_tokens=70))
    for split in ("train", "val"):
        tokens = open_split(tmp_path / "tokens", split)
        assert list(tokens.sources) == ["a", "b", "c"] and tokens.sources["c"][1] == tokens.n_tokens
        for name, (start, stop) in tokens.sources.items():
            texts = [d.text for d in iter_split(tmp_path / "corpus", split) if d.source.startswith(f"{name}/")]
            ids = tokens.read(start, stop).tolist()
            assert ids.count(tokenizer.eos_id) == len(texts)
            assert tokenizer.decode([i for i in ids if i != tokenizer.eos_id]) == "".join(texts)
    train = open_split(tmp_path / "tokens", "train")
    batches = Batches(train, 6, 1, [Phase(0, quotas([1, 0, 3], "abc"))])
    inputs, targets = batches.fetch(0, 400)
    text = tokenizer.decode([i for i in inputs.flatten().tolist() if i != tokenizer.eos_id])
    assert "戊" not in text and text.count("壬") > 2 * text.count("甲") > 0
    assert targets.shape == (400, 6) and batches.count_targets(0, 400) == int((targets >= 0).sum())
