"""Our own BPE trainer: the pieces that the training cut makes, the merges that the library makes, bounded memory."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_text import TEXT

from fangcun.errors import FangcunError
from fangcun.tokenizer import Tokenizer, train_bpe
from fangcun.tokenizer.gb2312 import level_1
from fangcun.tokenizer.merge_engine import MergeEngine
from fangcun.tokenizer.patterns import training_cut
from fangcun.tokenizer.piece_counts import PieceCounter, hanzi_of_lanes
from fangcun.tokenizer.piece_table import LANE_BITS, PieceTable

# Everything that the cut tells apart, hanzi without a lane of their own (𰀀 is one of the late planes) among it.
CHARACTERS = "天下大势分久必合〇々𠀀𪚥𰀀ab XyZéж한かカไ' 's'tS5２Ⅳ½ .,，。“”_-\t\n\r\u00a0\u3000\u0301\ufeff🙂"
mixed_text = st.lists(st.one_of(st.text(st.sampled_from(CHARACTERS)), st.text(), st.text("天下大势分久必合，")))


def counted(counter: PieceCounter) -> Counter[str]:
    found = Counter(counter.other)
    keys, counts = counter.han.total()
    for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
        lanes = [(key >> LANE_BITS * i) & ((1 << LANE_BITS) - 1) for i in range(4)]
        found["".join(chr(hanzi_of_lanes()[lane]) for lane in lanes if lane)] += count
    return found


def cut(texts: list[str], max_han_run: int) -> Counter[str]:
    pre_tokenizer = training_cut(max_han_run)
    return Counter(text[a:b] for text in texts for _, (a, b) in pre_tokenizer.pre_tokenize_str(text))


@given(mixed_text, st.sampled_from([1, 2, 3, 4, 6]), st.sampled_from([1, 7, 1000]), st.sampled_from([0, 3, 1000]))
@settings(deadline=None, max_examples=100)
def test_pieces_are_those_of_the_training_cut(texts: list[str], run: int, chunk: int, segments: int) -> None:
    counter = PieceCounter(run, chunk_characters=chunk, segment_limit=segments)
    counter.count(texts)
    assert counted(counter) == cut(texts, run)
    assert counter.text_bytes == sum(len(text.encode()) for text in texts)


def vocabulary(tokenizer: Tokenizer) -> tuple[dict[str, int], list[list[str]]]:
    model = json.loads(tokenizer.backend.to_str())["model"]
    return model["vocab"], [list(pair) for pair in model["merges"]]


# One byte a character: there our merges inside characters and the library's of all bytes are the same thing.
ascii_text = st.lists(st.text(st.sampled_from("abc AB.'s1\n"), max_size=30), min_size=1, max_size=30)


@given(ascii_text)
@settings(deadline=None, max_examples=40)
def test_merges_of_ascii_text_are_the_librarys(texts: list[str]) -> None:
    ours, theirs = (
        vocabulary(train_bpe(texts, vocab_size=320, max_han_run=4, trainer=trainer)[0])
        for trainer in ("fangcun", "tokenizers")
    )
    assert ours == theirs


def reference_merges(pieces: list[tuple[list[int], int]], wanted: int, first_new: int) -> list[tuple[int, int]]:
    """Plain BPE on lists, counting everything again for each merge."""
    pieces = [(list(symbols), weight) for symbols, weight in pieces]
    merges: list[tuple[int, int]] = []
    while len(merges) < wanted:
        counts: Counter[tuple[int, int]] = Counter()
        for symbols, weight in pieces:
            for pair in itertools.pairwise(symbols):
                counts[pair] += weight
        if not counts or max(counts.values()) < 2:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        new = first_new + len(merges)
        for symbols, _ in pieces:
            at = 0
            while at < len(symbols) - 1:
                if (symbols[at], symbols[at + 1]) == best:
                    symbols[at : at + 2] = [new]
                at += 1
        merges.append(best)
    return merges


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=9), st.integers(1, 5)), min_size=1),
    st.sampled_from([1, 10**9]),
)
@settings(deadline=None, max_examples=100)
def test_the_engine_merges_as_plain_bpe_does(pieces: list[tuple[list[int], int]], scale: int) -> None:
    pieces = [(symbols, weight * scale) for symbols, weight in pieces]
    engine = MergeEngine(
        np.array([s for symbols, _ in pieces for s in symbols], np.int32),
        np.array([len(symbols) for symbols, _ in pieces], np.int32),
        np.array([weight for _, weight in pieces], np.int64),
        lambda symbol: symbol,
        20,
    )
    merges = []
    while len(merges) < 20 and (best := engine.best()) is not None:
        engine.merge(*best[1:], 4 + len(merges))
        merges.append(best[1:])
    assert merges == reference_merges(pieces, 20, 4)


def test_the_index_is_made_again_when_it_has_no_more_pairs() -> None:
    generator = np.random.default_rng(0)
    pieces = [(generator.integers(0, 60, 6).tolist(), int(w)) for w in generator.integers(1, 50, 300)]
    engine = MergeEngine(
        np.array([s for symbols, _ in pieces for s in symbols], np.int32),
        np.full(len(pieces), 6, np.int32),
        np.array([weight for _, weight in pieces], np.int64),
        lambda symbol: symbol,
        0,  # no more than 1,024 of about 1,250 pairs come into the first index
    )
    made = []
    while (best := engine.best()) is not None:
        engine.merge(*best[1:], 60 + len(made))
        made.append(best[1:])
    assert len(made) > 700
    assert made == reference_merges(pieces, len(made) + 1, 60)


def test_chinese_needs_no_more_tokens_than_with_the_librarys_vocabulary(shared_data: Path) -> None:
    text = (shared_data / "novels" / "hongloumeng.txt").read_text(encoding="utf-8")[:300_000]
    blocks = [text[i : i + 3000] for i in range(0, len(text), 3000)]
    training, held_out = [b for i, b in enumerate(blocks) if i % 10], blocks[::10]
    ours, theirs = (
        sum(map(len, train_bpe(training, vocab_size=3000, max_han_run=4, trainer=t)[0].encode_documents(held_out)))
        for t in ("fangcun", "tokenizers")
    )
    assert ours <= theirs * 1.005


def test_no_token_holds_parts_of_two_characters() -> None:
    tokenizer, _ = train_bpe([TEXT] * 20 + ["你好世界" * 3] * 9, vocab_size=700, max_han_run=4)
    sign = {c: b for b, c in _signs().items()}
    for token in vocabulary(tokenizer)[0]:
        if not token.startswith("<|"):
            raw = bytes(sign[c] for c in token)
            whole = raw.decode("utf-8", errors="replace").replace("\ufffd", "")
            assert not whole or whole.encode() == raw


def _signs() -> dict[int, str]:
    from fangcun.tokenizer.decoding import byte_characters

    return {byte: sign for sign, byte in byte_characters().items()}


@pytest.fixture(scope="module")
def with_hanzi() -> tuple[Tokenizer, list[str]]:
    return train_bpe([TEXT] * 20, vocab_size=8000, max_han_run=4, gb2312=True)


def test_every_hanzi_of_gb2312_level_1_is_one_token(with_hanzi: tuple[Tokenizer, list[str]]) -> None:
    tokenizer, notes = with_hanzi
    hanzi = level_1()
    assert (len(set(hanzi)), hanzi[0], hanzi[-1]) == (3755, "啊", "座")
    assert all(len(tokenizer.encode(c)) == 1 for c in hanzi)
    assert "3,755" in notes[0] and "4,051 of 8,000" in notes[0]


@given(st.text())
@settings(deadline=None, max_examples=200)
def test_any_unicode_text_comes_back(with_hanzi: tuple[Tokenizer, list[str]], text: str) -> None:
    tokenizer, _ = with_hanzi
    (ids,) = tokenizer.encode_documents([text])
    assert tokenizer.decode(ids) == text
    assert 0 not in ids


def test_auto_leaves_a_small_text_without_forced_hanzi() -> None:
    tokenizer, _ = train_bpe([TEXT] * 20, vocab_size=8000, max_han_run=4, gb2312="auto")
    assert tokenizer.vocab_size < 4000


def test_forced_hanzi_in_a_small_vocabulary_are_refused() -> None:
    with pytest.raises(FangcunError, match=r"tokenizer.gb2312.*5,000.*8,000"):
        train_bpe([TEXT], vocab_size=5000, max_han_run=4, gb2312=True)


def test_how_texts_are_grouped_does_not_matter() -> None:
    lines = TEXT.splitlines(keepends=True) * 10
    tables = []
    for size in (10, 500, 10**6):
        counter = PieceCounter(4, chunk_characters=size)
        counter.count(lines)
        tables.append(counted(counter))
    assert tables[0] == tables[1] == tables[2]


def test_a_full_table_counts_rare_pieces_by_their_halves_and_says_by_how_much() -> None:
    draw = np.random.default_rng(0)
    # Four lanes each: the first 50 often, the rest about once.
    rare = draw.integers(1, 100, (3000, 4))
    common = np.repeat(draw.integers(1, 100, (50, 4)), 40, axis=0)
    lanes = draw.permutation(np.concatenate([rare, common])).astype(np.uint64)
    keys = sum(lanes[:, i] << np.uint64(LANE_BITS * i) for i in range(4))
    table, exact = PieceTable(1200), Counter(keys.tolist())
    for chunk in np.array_split(keys, 30):
        table.add(chunk.copy())
    kept, counts = table.total()
    assert len(kept) < 10_000 + 1200
    assert table.undercount > 0
    for key, count in zip(kept.tolist(), counts.tolist(), strict=True):
        if key >> 2 * LANE_BITS:
            assert exact[key] - table.undercount <= count <= exact[key]
    missing = set(exact) - set(kept.tolist())
    assert missing and all(exact[key] <= table.undercount for key in missing)

    def of_lanes(keys: list[int], counts: list[int]) -> Counter[int]:
        out: Counter[int] = Counter()
        for key, count in zip(keys, counts, strict=True):
            for i in range(4):
                out[(key >> LANE_BITS * i) & 0xFFFF] += count
        del out[0]
        return out

    assert of_lanes(kept.tolist(), counts.tolist()) == of_lanes(list(exact), list(exact.values()))


def test_rare_words_are_dropped_within_the_bound_that_is_given() -> None:
    draw = np.random.default_rng(0)
    words = [f"{chr(97 + a)}{chr(97 + b)}{chr(97 + c)}." for a, b, c in draw.zipf(1.5, (20_000, 3)) % 26]
    exact = cut(words, 4)
    counter = PieceCounter(4, other_limit=500, segment_limit=50, chunk_characters=200)
    counter.count(words)
    assert counter.other_undercount > 0
    assert len(counter.other) <= 500
    for piece, count in exact.items():
        assert count - counter.other_undercount <= counter.other[piece] <= count


def test_progress_counts_tokens_up_to_the_vocabulary() -> None:
    seen: list[tuple[int, int]] = []
    train_bpe([TEXT] * 20, vocab_size=500, max_han_run=4, progress=lambda made, wanted: seen.append((made, wanted)))
    assert len(seen) >= 3
    assert seen == sorted(seen) and seen[-1] == (500, 500)
