"""How often each piece of the training cut occurs, without a Python step for each piece of Chinese.

Runs of hanzi are cut and packed into 64-bit keys in numpy. The rest of the text, with one hanzi in place of each run, is
cut where Qwen2's pattern always cuts (behind letters, behind numerals); the distinct segments go through the pattern once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from tokenizers import Regex, pre_tokenizers

from fangcun.tokenizer.patterns import QWEN2, training_pattern
from fangcun.tokenizer.piece_table import LANE_BITS, PieceTable

# A surrogate: no text has it.
_SEPARATOR = 0xD800
# A compatibility ideograph that normalisation takes away; a piece of it alone would not be counted.
_PLACEHOLDER = "\U0002fa1d"
_LAST_LETTER = 0x3FFFF
_LETTER, _NUMERAL, _HAN = 1, 2, 4
_LANES = 4


@lru_cache(maxsize=1)
def _classes() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint16], npt.NDArray[np.uint32]]:
    """Per code point its class bits and its lane value (0: no lane), and the hanzi of each lane value.

    Taken from the regular expressions of `tokenizers` themselves, so that both know the same version of Unicode. The
    first 65,535 hanzi by code point have a lane value.
    """
    points = np.concatenate([np.arange(_SEPARATOR), np.arange(0xE000, _LAST_LETTER + 1)]).astype(np.uint32)
    text = points.tobytes().decode("utf-32-le")
    table = np.zeros(0x110000, np.uint8)
    for bit, pattern in ((_LETTER, r"\p{L}+"), (_NUMERAL, r"\p{N}+"), (_HAN, r"[\p{Han}&&\p{L}]+")):
        inside = np.ones(len(points), np.bool_)
        for _, (start, stop) in pre_tokenizers.Split(Regex(pattern), "removed").pre_tokenize_str(text):
            inside[start:stop] = False
        table[points[inside]] |= bit
    hanzi = np.flatnonzero(table & _HAN)[: (1 << LANE_BITS) - 1].astype(np.uint32)
    lanes = np.zeros(0x110000, np.uint16)
    lanes[hanzi] = np.arange(1, len(hanzi) + 1, dtype=np.uint16)
    return table, lanes, np.concatenate([np.zeros(1, np.uint32), hanzi])


def hanzi_of_lanes() -> npt.NDArray[np.uint32]:
    """The code point of each lane value of a key; entry 0 stands for an empty lane."""
    return _classes()[2]


class PieceCounter:
    """Counts the pieces that `training_cut(max_han_run)` makes of texts.

    `han` holds pieces of one to four hanzi as keys, `other` every other piece as a string. Memory is bounded: `han` by
    `han_limit` keys (see PieceTable), `other` by `other_limit` strings, of which the rarest are dropped when there are
    more (lossy counting: `other_undercount` is the most by which a count is too small). Below the limits the counts are
    exact and do not depend on how the texts are grouped.
    """

    def __init__(
        self,
        max_han_run: int,
        *,
        han_limit: int = 24_000_000,
        other_limit: int = 2_000_000,
        segment_limit: int = 500_000,
        chunk_characters: int = 2_000_000,
    ) -> None:
        self.han = PieceTable(han_limit)
        self.other: Counter[str] = Counter()
        self.other_undercount = 0
        self.text_bytes = 0
        self._max_han_run = max_han_run
        self._other_limit = other_limit
        self._segment_limit = segment_limit
        self._chunk_characters = chunk_characters
        self._segments: Counter[str] = Counter()
        self._cut = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(QWEN2), "isolated"),
                pre_tokenizers.Split(Regex(training_pattern(max_han_run)), "isolated"),
            ]
        )

    def count(self, texts: Iterable[str]) -> None:
        """Count the pieces of `texts`; no piece reaches from one text into the next."""
        waiting: list[str] = []
        characters = 0
        for text in texts:
            waiting.append(text)
            characters += len(text)
            if characters >= self._chunk_characters:
                self._count_chunk(waiting)
                waiting, characters = [], 0
        self._count_chunk(waiting)
        self._cut_segments()

    def _count_chunk(self, texts: list[str]) -> None:
        joined = chr(_SEPARATOR).join(["", *texts, ""])
        points = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
        table, lanes, _ = _classes()
        kind = table[points]
        self.text_bytes += len(points) - 3 * (len(texts) + 1)
        self.text_bytes += sum(int(np.count_nonzero(points >= least)) for least in (0x80, 0x800, 0x10000))
        han = (kind & _HAN) != 0
        edges = np.flatnonzero(han[1:] != han[:-1]) + 1  # the ends are separators, so edges come in pairs
        starts, stops = edges[::2], edges[1::2]
        kept = ~han
        if len(starts):
            lane = lanes[points]
            fast = ~np.logical_or.reduceat(han & (lane == 0), edges)[::2]
            if self._max_han_run > _LANES:
                fast &= stops - starts <= _LANES
            kept[starts] = True
            if not fast.all():  # such runs stay in the text, and the pattern cuts them
                for start, stop in zip(starts[~fast].tolist(), stops[~fast].tolist(), strict=True):
                    kept[start:stop] = True
            self._count_han(lane, starts[fast], stops[fast])
            points = points.copy()
            points[starts[fast]] = ord(_PLACEHOLDER)
        points, kind = points[kept], kind[kept]
        letter = (kind & _LETTER) != 0
        ends = (kind & _NUMERAL) != 0
        ends[:-1] |= letter[:-1] & ~letter[1:]
        shrunk = np.insert(points, np.flatnonzero(ends) + 1, np.uint32(_SEPARATOR))
        self._segments.update(shrunk.tobytes().decode("utf-32-le", "surrogatepass").split(chr(_SEPARATOR)))
        if len(self._segments) > self._segment_limit:
            self._cut_segments()

    def _count_han(
        self, lane: npt.NDArray[np.uint16], starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]
    ) -> None:
        size = min(self._max_han_run, _LANES)
        length = stops - starts
        pieces = -(-length // size)
        if not len(pieces):
            return
        first = np.repeat(np.cumsum(pieces) - pieces, pieces)
        begin = np.repeat(starts, pieces) + (np.arange(int(pieces.sum())) - first) * size
        left = np.repeat(stops, pieces) - begin
        keys = lane[begin].astype(np.uint64)
        for i in range(1, size):
            # Behind the end of a run there is at least one separator: i stays inside the array where it counts.
            value = lane[np.minimum(begin + i, len(lane) - 1)].astype(np.uint64)
            keys |= np.where(left > i, value << np.uint64(LANE_BITS * i), np.uint64(0))
        self.han.add(keys)

    def _cut_segments(self) -> None:
        """Send the distinct segments through the pattern, many in one string with a numeral between two."""
        # A segment without a letter or numeral at its end is the end of a text, where the pattern looks ahead: it goes
        # alone.
        batch: list[str] = []
        weights: list[int] = []
        characters = 0
        for segment, weight in self._segments.items():
            if not segment or segment == _PLACEHOLDER:
                continue
            if not _ends_a_piece(segment):
                self._add_pieces([segment], [weight])
                continue
            batch.append(segment)
            weights.append(weight)
            characters += len(segment) + 1
            if characters > 50_000:
                self._add_pieces(batch, weights)
                batch, weights, characters = [], [], 0
        self._add_pieces(batch, weights)
        self._segments.clear()
        if len(self.other) > self._other_limit:
            self._drop_rarest()

    def _add_pieces(self, segments: list[str], weights: list[int]) -> None:
        if not segments:
            return
        stops = np.cumsum([len(segment) + 1 for segment in segments]).tolist()
        other, at, stop, weight = self.other, 0, stops[0] - 1, weights[0]
        for piece, (start, _) in self._cut.pre_tokenize_str("0".join(segments)):
            if start >= stop:
                if start == stop:  # the numeral between two segments
                    continue
                at += 1
                stop, weight = stops[at] - 1, weights[at]
            if piece != _PLACEHOLDER:
                other[piece] += weight

    def _drop_rarest(self) -> None:
        counts = np.fromiter(self.other.values(), np.int64, len(self.other))
        keep = self._other_limit // 2
        threshold = int(np.partition(counts, len(counts) - keep)[len(counts) - keep])
        self.other = Counter({piece: n for piece, n in self.other.items() if n > threshold or len(piece) == 1})
        self.other_undercount += threshold


def _ends_a_piece(segment: str) -> bool:
    return bool(_classes()[0][ord(segment[-1])] & (_LETTER | _NUMERAL))
