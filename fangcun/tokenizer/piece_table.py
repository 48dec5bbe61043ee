"""Counts of pieces of hanzi in bounded memory: sorted 64-bit keys, merged as a log-structured tree.

A piece of up to four hanzi is one key of four 16-bit lanes. Counts are exact until the table is full; then the rarest
pieces of three and four hanzi are counted by their halves, which keeps every hanzi and most of the neighbourhoods.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]

LANE_BITS = 16
_TWO_LANES = np.uint64(2 * LANE_BITS)
_LOW_HALF = np.uint64((1 << 2 * LANE_BITS) - 1)


def unique(keys: Keys) -> tuple[Keys, Counts]:
    """The distinct keys, sorted, and how often each occurs. Sorts `keys` in place."""
    keys.sort()
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.zeros(0, np.int64)
    return keys[starts], np.diff(starts, append=len(keys))


def add_up(keys: Keys, counts: Counts) -> tuple[Keys, Counts]:
    """Two or more sorted tables, one behind the other, as one: equal keys once, their counts added."""
    order = np.argsort(keys, kind="stable")  # sorted runs: a merge, not a sort
    keys = keys[order]
    counts = counts[order]
    del order
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.zeros(0, np.int64)
    return keys[starts], np.add.reduceat(counts, starts) if len(keys) else counts


class PieceTable:
    """Counts of keys. Holds at most about `limit` distinct keys at rest, and twice that while two tables are merged.

    When full, all keys of more than two lanes with a count of at most t are counted by their halves, t being the least
    that frees a quarter of the table. As in lossy counting (Manku and Motwani, "Approximate frequency counts over data
    streams", VLDB 2002) a key that is still there counts too little by at most the sum of these t: `undercount`.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.undercount = 0
        self.halved_occurrences = 0
        self._levels: list[tuple[Keys, Counts]] = []

    def add(self, keys: Keys) -> None:
        """Count one occurrence of each entry of `keys` (sorted in place)."""
        if not len(keys):
            return
        self._levels.append(unique(keys))
        while len(self._levels) > 1 and len(self._levels[-2][0]) < 2 * len(self._levels[-1][0]):
            self._merge_last()
        if sum(len(keys) for keys, _ in self._levels) > self.limit:
            self._shrink()

    def total(self) -> tuple[Keys, Counts]:
        """All keys, sorted, and their counts. The table stays as it is, as one level."""
        while len(self._levels) > 1:
            self._merge_last()
        return self._levels[0] if self._levels else (np.zeros(0, np.uint64), np.zeros(0, np.int64))

    def clear(self) -> None:
        """Forget all keys."""
        self._levels.clear()

    def _merge_last(self) -> None:
        (a, n), (b, m) = self._levels[-2:]
        del self._levels[-2:]
        keys, counts = np.concatenate([a, b]), np.concatenate([n, m])
        del a, b, n, m
        self._levels.append(add_up(keys, counts))

    def _shrink(self) -> None:
        keys, counts = self.total()
        if len(keys) <= self.limit:
            return
        self._levels.clear()
        threshold, shrunk = rarest(keys, counts, len(keys) - self.limit * 3 // 4)
        self.undercount += threshold
        self.halved_occurrences += int(counts[shrunk].sum())
        self._levels.append(halve(keys, counts, shrunk))


def rarest(keys: Keys, counts: Counts, remove: int) -> tuple[int, npt.NDArray[np.bool_]]:
    """The least t such that `remove` keys of more than two lanes count at most t (or all do), and which these are."""
    long = keys > _LOW_HALF
    histogram = np.cumsum(np.bincount(np.minimum(counts[long], 1 << 16)))
    threshold = int(min(np.searchsorted(histogram, remove), len(histogram) - 1)) if len(histogram) else 0
    return threshold, long & (counts <= threshold)


def halve(keys: Keys, counts: Counts, which: npt.NDArray[np.bool_]) -> tuple[Keys, Counts]:
    """The table with the keys `which` counted as their first two lanes and the rest."""
    long, weight = keys[which], counts[which]
    return add_up(
        np.concatenate([keys[~which], long & _LOW_HALF, long >> _TWO_LANES]),
        np.concatenate([counts[~which], weight, weight]),
    )
