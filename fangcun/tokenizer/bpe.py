"""Byte-level BPE in bounded memory: count the pieces, merge bytes inside characters, then characters.

The merges of bytes inside a character always come before those with its neighbours: a pair cannot occur more often than
the character in it. So characters are the atoms of the large table, and bytes need one of distinct characters only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from fangcun.tokenizer.character_bytes import CharacterBytes, force_whole
from fangcun.tokenizer.gb2312 import level_1
from fangcun.tokenizer.merge_engine import MergeEngine
from fangcun.tokenizer.piece_counts import PieceCounter, hanzi_of_lanes
from fangcun.tokenizer.piece_table import LANE_BITS

MIN_FREQUENCY = 2
GB2312_FROM_BYTES = 20_000_000
GB2312_FROM_VOCABULARY = 8_000
Progress = Callable[[int, int], None]


@dataclass
class LearnedMerges:
    """What training gives: tokens by id, behind the special ones, and merges in order."""

    tokens: list[bytes]
    merges: list[tuple[bytes, bytes]]
    notes: list[str] = field(default_factory=list)


class _Vocabulary:
    def __init__(self, first_id: int, byte_order: list[int], size: int) -> None:
        self.tokens = [bytes([b]) for b in byte_order]
        self.merges: list[tuple[bytes, bytes]] = []
        self._first_id = first_id
        self._size = size
        self._id_of = {token: first_id + i for i, token in enumerate(self.tokens)}
        self.byte_ids = [self._id_of[bytes([b])] for b in range(256)]

    @property
    def full(self) -> bool:
        return self._first_id + len(self.tokens) >= self._size

    def emit(self, left: int, right: int) -> int:
        parts = self.tokens[left - self._first_id], self.tokens[right - self._first_id]
        whole = b"".join(parts)
        self.merges.append(parts)
        if whole not in self._id_of:  # the same text may come from other halves: one token, two merges
            self._id_of[whole] = self._first_id + len(self.tokens)
            self.tokens.append(whole)
        return self._id_of[whole]


def learn_bpe(
    texts: Iterable[str],
    *,
    vocab_size: int,
    max_han_run: int,
    byte_order: list[int],
    first_id: int,
    gb2312: bool | str = "auto",
    min_frequency: int = MIN_FREQUENCY,
    progress: Progress | None = None,
) -> LearnedMerges:
    """Learn the tokens `first_id` to `vocab_size` - 1 from `texts`, cut as `training_cut(max_han_run)` does.

    `byte_order` lists the 256 bytes in the order of their ids. `gb2312` makes each hanzi of GB2312 level 1 one token;
    "auto" does so from 20 MB of text and 8,000 ids on. `progress(made, wanted)` counts tokens. Bytes are merged inside
    characters only; apart from that, the merges are those of plain BPE (Sennrich et al. 2016) with the most frequent
    pair first and the smaller ids among equals. The same texts in the same order give the same result; their grouping
    matters only where the counter is full (see PieceCounter), which a note says.
    """
    counter = PieceCounter(max_han_run)
    counter.count(texts)
    text_bytes = counter.text_bytes
    notes = _counting_notes(counter)
    symbols, lengths, weights, characters, character_counts = _flatten(counter)
    vocabulary = _Vocabulary(first_id, byte_order, vocab_size)
    inside = CharacterBytes(dict(zip(characters, character_counts, strict=True)), vocabulary.byte_ids)
    index = {character: i for i, character in enumerate(characters)}
    # The engine numbers symbols its own way: characters first, then merged ones. `ids` says which token each one is.
    ids = [inside.spelling(c)[0] if len(inside.spelling(c)) == 1 else -1 for c in characters]

    if gb2312 is True or (
        gb2312 == "auto" and text_bytes >= GB2312_FROM_BYTES and vocab_size >= GB2312_FROM_VOCABULARY
    ):
        common = level_1()
        order = sorted(common, key=lambda c: (-character_counts[index[c]] if c in index else 0, c))
        before = len(vocabulary.tokens)
        for character, token in force_whole(inside, order, vocabulary.byte_ids, vocabulary.emit):
            ids[index[character]] = token
        used = len(vocabulary.tokens) - before
        notes.append(
            f"Each of the {len(common):,} hanzi of GB2312 level 1 is one token (tokenizer.gb2312); with the {used - len(common):,} tokens for their first two bytes they take {used:,} of {vocab_size:,} ids."
        )

    engine = MergeEngine(
        symbols, lengths, weights, lambda symbol: ids[symbol], vocab_size - first_id - len(vocabulary.tokens),
        min_frequency,
    )  # fmt: skip
    symbol_of = {token: symbol for symbol, token in enumerate(ids) if token >= 0}
    made = 0
    while not vocabulary.full:
        byte_pair, pair = inside.best(), engine.best()
        if byte_pair is not None and byte_pair[0] >= min_frequency and _comes_first(byte_pair, pair, ids):
            token = vocabulary.emit(*byte_pair[1:])
            for character in inside.merge(*byte_pair[1:], token):
                ids[index[character]] = token
                symbol_of[token] = index[character]
        elif pair is not None and pair[0] >= min_frequency:
            token = vocabulary.emit(ids[pair[1]], ids[pair[2]])
            if token not in symbol_of:
                symbol_of[token] = len(ids)
                ids.append(token)
            engine.merge(*pair[1:], symbol_of[token])
        else:
            break
        made += 1
        if progress is not None and made % 64 == 0:
            progress(first_id + len(vocabulary.tokens), vocab_size)
    if progress is not None:
        progress(vocab_size, vocab_size)
    return LearnedMerges(vocabulary.tokens, vocabulary.merges, notes)


def _comes_first(byte_pair: tuple[int, int, int], pair: tuple[int, int, int] | None, ids: list[int]) -> bool:
    """Whether a pair of bytes is merged before a pair of symbols: by count, then by ids, as in a single table."""
    if pair is None or byte_pair[0] != pair[0]:
        return pair is None or byte_pair[0] > pair[0]
    of_symbols = ids[pair[1]], ids[pair[2]]
    return -1 in of_symbols or byte_pair[1:] < of_symbols


def _counting_notes(counter: PieceCounter) -> list[str]:
    notes = []
    if counter.han.undercount:
        notes.append(
            f"More than {counter.han.limit:,} distinct pieces of hanzi: {counter.han.halved_occurrences:,} occurrences of rare pieces were counted by their halves; no piece is counted too low by more than {counter.han.undercount:,}."
        )
    if counter.other_undercount:
        notes.append(
            f"Rare words were dropped while counting: no word is counted too low by more than {counter.other_undercount:,}."
        )
    return notes


def _flatten(counter: PieceCounter) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str], list[int]]:
    """All pieces of two characters and more as one array of character numbers, and the count of each character.

    Empties the counter on the way.
    """
    keys, counts = counter.han.total()
    counter.han.clear()
    hanzi = hanzi_of_lanes()
    lane_counts = np.zeros(len(hanzi), np.int64)
    lane_mask = np.uint64((1 << LANE_BITS) - 1)
    # By the number of hanzi: then each length is one rectangular block.
    size_of = np.ones(len(keys), np.int8)
    for i in range(1, 4):
        size_of += (keys >> np.uint64(LANE_BITS * i)) > 0
    blocks, lengths, weights = [], [], []
    for size in range(1, 5):
        chosen = np.flatnonzero(size_of == size)
        block = np.empty((len(chosen), size), np.int32)
        weight = counts[chosen]
        for i in range(size):
            block[:, i] = (keys[chosen] >> np.uint64(LANE_BITS * i)) & lane_mask
            lane_counts += _weighted(block[:, i], weight, len(hanzi))
        if size > 1:
            blocks.append(block.reshape(-1))
            lengths.append(np.full(len(block), size, np.int32))
            weights.append(weight)
    del keys, counts, size_of
    # Strings: the same with code points.
    other = sorted(counter.other.items())
    counter.other.clear()
    points = np.frombuffer("".join(piece for piece, _ in other).encode("utf-32-le"), np.uint32)
    sizes = np.array([len(piece) for piece, _ in other], np.int32)
    weight = np.array([n for _, n in other], np.int64)
    del other
    point_counts = _weighted(points, np.repeat(weight, sizes), 0x110000)
    np.add.at(point_counts, hanzi[lane_counts > 0], lane_counts[lane_counts > 0])
    present = np.flatnonzero(point_counts)
    number = np.zeros(0x110000, np.int32)
    number[present] = np.arange(len(present), dtype=np.int32)
    of_lane = number[hanzi]
    long = np.repeat(sizes, sizes) > 1
    for i, block in enumerate(blocks):
        blocks[i] = of_lane[block]
    blocks.append(number[points[long]])
    lengths.append(sizes[sizes > 1])
    weights.append(weight[sizes > 1])
    return (
        np.concatenate(blocks),
        np.concatenate(lengths),
        np.concatenate(weights),
        [chr(point) for point in present.tolist()],
        point_counts[present].tolist(),
    )


def _weighted(values: np.ndarray, weights: np.ndarray, size: int) -> np.ndarray:
    """Exact weighted counts of small numbers: floating point holds integers up to 2**53, so the sum goes by halves."""
    low = np.bincount(values, weights=weights & 0xFFFFFFFF, minlength=size)
    high = np.bincount(values, weights=weights >> 32, minlength=size)
    return low.astype(np.int64) + (high.astype(np.int64) << 32)
