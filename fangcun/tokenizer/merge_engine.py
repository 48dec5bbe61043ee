"""Pair merging over weighted pieces in numpy: an index from pair to positions and a heap of upper bounds.

A pair's count can only fall once its younger symbol exists, so the count on the heap is an upper bound: it is counted
again when it comes to the top, and merged when it still is the largest. No other bookkeeping of counts is needed.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fangcun.errors import FangcunError

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]

_POSITION_BITS = 28
MAX_POSITIONS = 1 << _POSITION_BITS
_POSITION_MASK = np.uint64(MAX_POSITIONS - 1)
_BLOCK = 1 << 22
# Entries of the index for each merge that is still wanted. The rest is looked up again if the heap ever gets there.
_INDEXED_PAIRS_PER_MERGE = 8


class MergeEngine:
    """Pieces as symbols in one flat array, of which pairs are merged.

    `symbols` has the characters of all pieces one behind the other, `lengths` the number of characters of each piece,
    `weights` how often each piece occurs. A symbol of more than one character holds its number in its first place,
    -2 minus its number in its last and -1 in the others. `rank` gives the order of symbols among pairs of the same
    count, or -1 while a symbol has none. Memory: 8 bytes a character and 12 a piece, 20 more bytes a character while
    the index is made.
    """

    def __init__(
        self,
        symbols: Int32s,
        lengths: npt.NDArray[np.integer],
        weights: Int64s,
        rank: Callable[[int], int],
        wanted_merges: int,
        min_frequency: int = 2,
    ) -> None:
        if len(symbols) >= MAX_POSITIONS:
            raise FangcunError(
                f"BPE training: the distinct words have {len(symbols):,} characters, at most {MAX_POSITIONS - 1:,} fit. "
                "Lower --tokenizer.sample_bytes, or leave out text that is none (long runs of encoded data)."
            )
        self._symbols = symbols
        self._piece = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
        self._weights = weights
        self._rank = rank
        self._size = np.ones(max(1, int(symbols.max(initial=0)) + 1), np.int32)
        self._wanted_merges = wanted_merges
        self._min_frequency = min_frequency
        self._threshold = 0
        self._positions: dict[tuple[int, int], Int32s] = {}
        self._heap: list[tuple[int, int, int, int, int]] = []
        # What `best` has found, with the ranks it went by, until something is merged.
        self._found: tuple[int, int, int] | None = None
        self._found_ranks = (0, 0)
        self._make_index()

    def best(self) -> tuple[int, int, int] | None:
        """The most frequent pair and its count, (count, left, right), or None. Of equal ones the smaller by rank."""
        if self._found is not None and self._found_ranks == tuple(map(self._rank, self._found[1:])):
            return self._found
        while True:
            if not self._heap:
                if self._threshold <= self._min_frequency:
                    return None
                self._make_index()
                continue
            bound, left_rank, right_rank, left, right = self._heap[0]
            ranks = (self._rank(left), self._rank(right))
            found = self._valid(left, right)
            count = int(self._weights[self._piece[found]].sum())
            self._positions[left, right] = found
            if count == -bound and ranks == (left_rank, right_rank):
                self._found, self._found_ranks = (count, left, right), ranks
                return self._found
            if count < self._threshold:
                heapq.heappop(self._heap)
                del self._positions[left, right]
            else:
                heapq.heapreplace(self._heap, (-count, *ranks, left, right))

    def merge(self, left: int, right: int, new: int) -> None:
        """Make every `left` `right`, the pair of `best()`, the symbol `new`: a fresh one, or one of the same text."""
        if self._found is None or self._found[1:] != (left, right):
            raise ValueError("merge takes the pair that best() has given")
        heapq.heappop(self._heap)
        at = self._positions.pop((left, right))
        self._found = None
        self._wanted_merges -= 1
        symbols, piece = self._symbols, self._piece
        if left == right:
            at = _without_overlap(at, int(self._size[left]))
        left_size = int(self._size[left])
        size = left_size + int(self._size[right])
        if new >= len(self._size):
            self._size = np.concatenate([self._size, np.ones(max(1024, new + 1 - len(self._size)), np.int32)])
        self._size[new] = size
        symbols[at + left_size] = -1
        symbols[at] = new
        symbols[at + size - 1] = -2 - new
        mine = piece[at]
        # The neighbours as they are now: one that was merged just before or behind is `new` itself.
        before = np.maximum(at - 1, 0)
        there = np.flatnonzero((at > 0) & (piece[before] == mine))
        neighbour = symbols[before[there]]
        neighbour = np.where(neighbour < 0, -2 - neighbour, neighbour)
        self._add(neighbour, at[there] - self._size[neighbour], new, first=True)
        behind = np.minimum(at + size, len(symbols) - 1)
        there = np.flatnonzero((at + size < len(symbols)) & (piece[behind] == mine))
        neighbour = symbols[behind[there]]
        other = neighbour != new  # (new, new) was seen from its right half
        self._add(neighbour[other], at[there[other]], new, first=False)

    def _valid(self, left: int, right: int) -> Int32s:
        """The positions of a pair at which it still stands."""
        at = self._positions[left, right]
        at = at[self._symbols[at] == left]
        behind = at + self._size[left]
        inside = behind < len(self._symbols)
        if not inside.all():
            at, behind = at[inside], behind[inside]
        return at[(self._symbols[behind] == right) & (self._piece[behind] == self._piece[at])]

    def _add(self, neighbour: Int32s, at: Int32s, new: int, *, first: bool) -> None:
        """Pairs of `new` and its neighbours, at the positions `at`, to the index and the heap."""
        if not len(neighbour):
            return
        packed = neighbour.astype(np.uint64) << np.uint64(_POSITION_BITS) | at.astype(np.uint64)
        packed.sort()
        neighbour = (packed >> np.uint64(_POSITION_BITS)).astype(np.int32)
        at = (packed & _POSITION_MASK).astype(np.int32)
        starts = np.flatnonzero(np.concatenate([[True], neighbour[1:] != neighbour[:-1]]))
        counts = np.add.reduceat(self._weights[self._piece[at]], starts)
        stops = np.append(starts[1:], len(at))
        for i in np.flatnonzero(counts >= self._threshold).tolist():
            other = int(neighbour[starts[i]])
            pair = (other, new) if first else (new, other)
            self._push(pair, at[starts[i] : stops[i]].copy(), int(counts[i]))

    def _push(self, pair: tuple[int, int], at: Int32s, count: int) -> None:
        if pair in self._positions:  # a symbol made a second time, from other halves: its old entry may stay too low
            at = np.union1d(self._positions[pair], at)
            count = int(self._weights[self._piece[at]].sum())
        self._positions[pair] = at
        heapq.heappush(self._heap, (-count, self._rank(pair[0]), self._rank(pair[1]), *pair))

    def _make_index(self) -> None:
        """Find all pairs and keep those that may come to be merged, with a lower threshold each time."""
        heads = np.flatnonzero(self._symbols >= 0).astype(np.int32)
        packed = np.empty(len(heads), np.uint64)
        numbers = np.uint64(len(self._size))
        filled = 0
        for start in range(0, len(heads), _BLOCK):
            at = heads[start : start + _BLOCK]
            left = self._symbols[at]
            behind = at + self._size[left]
            inside = np.minimum(behind, len(self._symbols) - 1)
            good = (behind < len(self._symbols)) & (self._piece[inside] == self._piece[at])
            at, left, right = at[good], left[good], self._symbols[inside[good]]
            key = left.astype(np.uint64) * numbers + right.astype(np.uint64)
            packed[filled : filled + len(at)] = (key << np.uint64(_POSITION_BITS)) | at.astype(np.uint64)
            filled += len(at)
        del heads
        packed = packed[:filled]
        packed.sort()
        starts, counts = self._count_pairs(packed)
        keep = max(1024, _INDEXED_PAIRS_PER_MERGE * max(self._wanted_merges, 0))
        previous = self._threshold
        self._threshold = self._min_frequency
        if len(counts) > keep:
            self._threshold = max(
                self._min_frequency, int(np.partition(counts, len(counts) - keep)[len(counts) - keep])
            )
        if previous:
            self._threshold = max(self._min_frequency, min(self._threshold, previous // 2))
        stops = np.append(starts[1:], len(packed))
        self._positions, self._heap = {}, []
        for i in np.flatnonzero(counts >= self._threshold).tolist():
            span = packed[starts[i] : stops[i]]
            left, right = divmod(int(span[0]) >> _POSITION_BITS, int(numbers))
            self._positions[left, right] = (span & _POSITION_MASK).astype(np.int32)
            self._heap.append((-int(counts[i]), self._rank(left), self._rank(right), left, right))
        heapq.heapify(self._heap)

    def _count_pairs(self, packed: npt.NDArray[np.uint64]) -> tuple[Int64s, Int64s]:
        """Where each pair begins in `packed`, which is sorted, and its count; in blocks, to hold little."""
        bounds, totals = [], []
        for start in range(0, len(packed), _BLOCK):
            block = packed[start : start + _BLOCK]
            key = block >> np.uint64(_POSITION_BITS)
            begins = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
            weight = self._weights[self._piece[(block & _POSITION_MASK).astype(np.int64)]]
            sums = np.add.reduceat(weight, begins)
            if start and packed[start - 1] >> np.uint64(_POSITION_BITS) == key[0]:
                totals[-1][-1] += sums[0]
                begins, sums = begins[1:], sums[1:]
            if len(begins):
                bounds.append(begins + start)
                totals.append(sums)
        if not bounds:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        return np.concatenate(bounds), np.concatenate(totals)


def _without_overlap(at: Int32s, size: int) -> Int32s:
    """Of positions of a pair of equal symbols, sorted, those that merging from the left takes."""
    if not len(at):
        return at
    begins = np.concatenate([[True], np.diff(at) != size])
    run_start = np.maximum.accumulate(np.where(begins, np.arange(len(at)), 0))
    return at[(np.arange(len(at)) - run_start) % 2 == 0]
