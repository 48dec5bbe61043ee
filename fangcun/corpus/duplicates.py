"""Which documents say again what another one says: exactly (but for punctuation, width and the like), or nearly.

Documents are numbered in the order they come. Signatures lie in a file, everything else is some fifty bytes a document.
Of those that are alike the longest is kept, of equally long ones the one with the least id: the choice depends on the
texts alone, not on their order or on who computed what.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fangcun.corpus.minhash import BANDS, BINS, band_keys, comparable, shingles, signature, similarity, text_hash

EXACT, NEAR = 1, 2
_CHUNK = 8192
_SIGNATURE_BYTES = 2 * BINS


@dataclass(slots=True)
class Features:
    """What is compared of one document."""

    hash: int
    """64 bits of the whole text; 0 for one without letters, which is like no other."""
    size: int
    """Characters that are compared."""
    signature: bytes
    """Empty where near-duplicates are not looked for."""


def features(text: str, near: bool) -> Features:
    """Of one text; pure, for worker processes."""
    codes = comparable(text)
    if not len(codes):
        return Features(0, 0, bytes(_SIGNATURE_BYTES) if near else b"")
    return Features(text_hash(codes) or 1, len(codes), signature(shingles(codes)).tobytes() if near else b"")


class Duplicates:
    """Takes the features of document after document, then finds the duplicates.

    Args:
        spool: a file for the signatures, deleted by `close`.
        threshold: estimated Jaccard similarity from which on two documents are near-duplicates; None: exact ones only.
    """

    def __init__(self, spool: Path, threshold: float | None) -> None:
        self.spool, self.threshold = spool, threshold
        self._file: BinaryIO | None = open(spool, "wb") if threshold is not None else None  # noqa: SIM115
        self._hashes: list[np.ndarray] = []
        self._waiting: list[tuple[int, int, int]] = []

    def add(self, found: Features, identity: str) -> None:
        """The next document; `identity` is its id, 16 hexadecimal digits."""
        self._waiting.append((found.hash, found.size, int(identity, 16)))
        if self._file is not None:
            self._file.write(found.signature)
        if len(self._waiting) >= _CHUNK:
            self._flush()

    def find(self) -> tuple[np.ndarray, np.ndarray]:
        """(of each document the number of the one that is kept in its place or -1, the kind: 0, EXACT or NEAR)."""
        self._flush()
        table = np.concatenate(self._hashes) if self._hashes else np.zeros((0, 3), np.uint64)
        hashes, sizes, ids = table[:, 0], table[:, 1], table[:, 2]
        groups = _Groups(len(table))
        order = np.argsort(hashes, kind="stable")
        again = (hashes[order[1:]] == hashes[order[:-1]]) & (hashes[order[1:]] != 0)
        for left, right in zip(order[:-1][again].tolist(), order[1:][again].tolist(), strict=True):
            groups.join(left, right)
        exact = groups.roots()
        if self._file is not None and len(table):
            self._file.flush()
            self._join_near(groups, hashes)
        return _keep(groups.roots(), exact, sizes, ids)

    def close(self) -> None:
        """Delete the spooled signatures."""
        if self._file is not None:
            self._file.close()
            self.spool.unlink(missing_ok=True)

    def _flush(self) -> None:
        if self._waiting:
            self._hashes.append(np.array(self._waiting, np.uint64))
            self._waiting = []

    def _join_near(self, groups: _Groups, hashes: np.ndarray) -> None:
        signatures = np.memmap(self.spool, np.uint16, "r", shape=(len(hashes), BINS))
        alone = np.flatnonzero(hashes != 0)
        for band in range(BANDS):
            keys = np.concatenate(
                [np.zeros(0, np.uint64), *(band_keys(signatures[part], band) for part in _parts(alone))]
            )
            order = np.argsort(keys, kind="stable")
            same = keys[order[1:]] == keys[order[:-1]]
            # Within documents of one key each is compared with the one before it and with the first.
            starts = np.append(True, ~same) if len(order) else np.zeros(0, bool)
            first = np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))
            later = np.flatnonzero(~starts)
            pairs = np.concatenate([np.stack([order[other], order[later]], 1) for other in (later - 1, first[later])])
            self._verify(groups, signatures, alone[pairs])

    def _verify(self, groups: _Groups, signatures: np.ndarray, pairs: np.ndarray) -> None:
        roots = groups.roots()
        pairs = np.unique(pairs[roots[pairs[:, 0]] != roots[pairs[:, 1]]], axis=0)
        for part in _parts(pairs):
            alike = similarity(signatures[part[:, 0]], signatures[part[:, 1]]) >= self.threshold
            for left, right in part[alike].tolist():
                groups.join(left, right)


def _parts(rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), _CHUNK):
        yield rows[start : start + _CHUNK]


def _keep(roots: np.ndarray, exact: np.ndarray, sizes: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # Groups together, in each the longest first, then the least id, then the first to come.
    order = np.lexsort((np.arange(len(roots)), ids, np.iinfo(np.int64).max - sizes.astype(np.int64), roots))
    starts = np.append(True, roots[order[1:]] != roots[order[:-1]]) if len(order) else np.zeros(0, bool)
    best = order[np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))]
    kept = np.full(len(roots), -1, np.int64)
    kept[order] = np.where(order == best, -1, best)
    kinds = np.where(kept < 0, 0, np.where(exact == exact[kept], EXACT, NEAR)).astype(np.uint8)
    return kept, kinds


class _Groups:
    """Union-find over document numbers; the root of a group is its least number."""

    def __init__(self, count: int) -> None:
        self.parent = np.arange(count, dtype=np.int64)

    def root(self, number: int) -> int:
        parent = self.parent
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = int(parent[number])
        return number

    def join(self, left: int, right: int) -> None:
        left, right = self.root(left), self.root(right)
        self.parent[max(left, right)] = min(left, right)

    def roots(self) -> np.ndarray:
        """The root of every document."""
        parent = self.parent
        while True:
            above = parent[parent]
            if (above == parent).all():
                return parent.copy()
            parent = self.parent = above
