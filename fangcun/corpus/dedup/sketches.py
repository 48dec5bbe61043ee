"""Sketches of documents: a hash that equal texts share, and a MinHash signature of the character 5-grams.

The share of places at which two signatures agree estimates the Jaccard similarity of the 5-gram sets (Broder, "On the
resemblance and containment of documents", 1997). One hash a 5-gram fills all places: it says which of 256 bins the gram
belongs to, and the smallest of a bin counts (Li, Owen and Zhang, "One Permutation Hashing", 2012); an empty bin borrows
from the first filled one in an order drawn for it (Shrivastava, "Optimal Densification", 2017, with permutations
in place of repeated draws, so that it ends).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fangcun.corpus.dedup.folding import Folding

SHINGLE_CHARACTERS = 5
PLACES = 256
"""Of a signature. The estimate's standard error is sqrt(J (1 - J) / 256): 0.027 at a similarity of 0.75."""

_EMPTY = np.uint32(0xFFFFFFFF)
_BLOCK = 1 << 16
_FEW, _CELLS = 128, 1 << 13
_MULTIPLIERS = tuple(
    int.from_bytes(hashlib.sha256(b"fangcun shingle %d" % i).digest()[:8], "little") | 1
    for i in range(SHINGLE_CHARACTERS)
)


@dataclass(frozen=True)
class Sketches:
    """What comparison needs to know of some documents, in their order. 528 bytes a document."""

    signatures: np.ndarray
    """(documents, 256) uint16; zeros where a document has fewer than five characters that count."""
    exact: np.ndarray
    """uint64: equal for texts that are equal after folding. Of a text with nothing left, the hash of the text itself."""
    lengths: np.ndarray
    """uint32: characters that count."""

    def __len__(self) -> int:
        return len(self.exact)


def sketch(texts: Sequence[str], folding: Folding) -> Sketches:
    """The sketches of a batch of documents: a pure function, fit for worker processes.

    Each is the same whatever stands beside it. Memory is about 25 bytes a character of the batch.
    """
    characters, starts = folding.fold(texts)
    lengths = np.diff(starts)
    exact = np.empty(len(texts), np.uint64)
    data = memoryview(characters.tobytes())
    for number, (start, end) in enumerate(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)):
        exact[number] = (
            hash_folded(data[4 * start : 4 * end]) if end > start else hash_folded(_raw(texts[number]), b"raw")
        )
    return Sketches(_signatures(characters, lengths), exact, np.minimum(lengths, 2**32 - 1).astype(np.uint32))


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def hash_folded(data: bytes | memoryview, person: bytes = b"") -> int:
    """A 64-bit hash of folded code points as bytes."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8, person=person).digest(), "little")


def shingle_hashes(characters: np.ndarray, width: int = SHINGLE_CHARACTERS) -> np.ndarray:
    """A 64-bit hash of each run of five code points: multiply and add, then SplitMix64's last steps."""
    count = max(0, len(characters) - width + 1)
    hashes, term = np.zeros(count, np.uint64), np.empty(count, np.uint64)
    for offset in range(width):
        np.multiply(characters[offset : offset + count], np.uint64(_MULTIPLIERS[offset]), out=term)
        hashes += term
    return mix(hashes)


def mix(hashes: np.ndarray) -> np.ndarray:
    """SplitMix64's last steps (Steele, Lea and Flood, 2014), in place."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        hashes ^= hashes >> np.uint64(shift)
        hashes *= np.uint64(factor)
    hashes ^= hashes >> np.uint64(31)
    return hashes


def _signatures(characters: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The smallest hash of each document and bin, a block of characters at a time; then the empty bins."""
    minima = np.full((len(lengths), PLACES), _EMPTY, np.uint32)
    owner = np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)
    flat = minima.reshape(-1)
    for start in range(0, len(characters) - SHINGLE_CHARACTERS + 1, _BLOCK):
        end = start + _BLOCK + SHINGLE_CHARACTERS - 1
        hashes = shingle_hashes(characters[start:end])
        first = owner[start : start + len(hashes)]
        whole = first == owner[start + SHINGLE_CHARACTERS - 1 : end]
        bins = first * PLACES + (hashes >> np.uint64(56)).view(np.int64)
        np.minimum.at(flat, bins[whole], hashes.astype(np.uint32)[whole])
    _densify(minima)
    return minima.astype(np.uint16)


def _densify(minima: np.ndarray) -> None:
    """Let each empty bin borrow; a document without any shingle becomes zeros. In place."""
    filled = minima != _EMPTY
    counts = np.count_nonzero(filled, axis=1)
    minima[counts == 0] = 0
    _ask_in_turn(minima, filled, np.flatnonzero((counts > _FEW) & (counts < PLACES)))
    # With few bins filled, most questions would be in vain: look for the lender asked first among those there are.
    lowest = 0
    while lowest < _FEW:
        most = max(1, 2 * lowest)
        documents = np.flatnonzero((counts > lowest) & (counts <= most))
        for start in range(0, len(documents), _CELLS // most):
            _first_lender(minima, filled, counts, documents[start : start + _CELLS // most], most)
        lowest = most


def _ask_in_turn(minima: np.ndarray, filled: np.ndarray, documents: np.ndarray) -> None:
    order = _borrowing_order()
    rows, bins = np.nonzero(~filled[documents])
    rows = documents[rows]
    for attempt in range(PLACES):
        if not len(rows):
            return
        lenders = order[attempt][bins]
        found = filled[rows, lenders]
        minima[rows[found], bins[found]] = minima[rows[found], lenders[found]]
        rows, bins = rows[~found], bins[~found]


def _first_lender(minima: np.ndarray, filled: np.ndarray, counts: np.ndarray, documents: np.ndarray, most: int) -> None:
    """The same for documents with at most `most` filled bins."""
    rows, bins = np.nonzero(filled[documents])
    starts = np.cumsum(counts[documents]) - counts[documents]
    lenders = np.repeat(bins[starts][:, None], most, axis=1)
    lenders[rows, np.arange(len(rows)) - starts[rows]] = bins
    first = _borrowing_turns()[lenders].min(axis=1) & np.uint16(PLACES - 1)
    borrowed = np.take_along_axis(minima[documents], first.astype(np.int64), axis=1)
    minima[documents] = np.where(filled[documents], minima[documents], borrowed)


@functools.cache
def _borrowing_order() -> np.ndarray:
    """(attempts, bins): which bin an empty one asks at each attempt; each column is a permutation."""
    bins = np.arange(PLACES * PLACES, dtype=np.uint64).reshape(PLACES, PLACES)
    keys = mix(bins * np.uint64(_MULTIPLIERS[0]))
    return np.argsort(keys, axis=0, kind="stable")


@functools.cache
def _borrowing_turns() -> np.ndarray:
    """(lenders, bins) uint16: 256 times the attempt at which the bin asks the lender, plus the lender."""
    turns = np.argsort(_borrowing_order(), axis=0).astype(np.uint16)
    return turns * np.uint16(PLACES) + np.arange(PLACES, dtype=np.uint16)[:, None]
