"""Signatures of documents from which the similarity of two of them is read off: MinHash (Broder 1997) over runs of five
characters, by one hash of each run (Li, Owen & Zhang 2012) instead of one for each place of the signature.

Compared is what a reader would call the same text: letters, hanzi and digits without white space and punctuation, small
letters, narrow ones, simplified characters.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

import numpy as np

SHINGLE = 5
BINS = 256
EMPTY = 0xFFFF
"""In a signature: no run fell into this bin."""

ROWS = 6
BANDS = BINS // ROWS
"""Two documents are compared when six places of one of 42 bands agree: at a similarity of 0.8 all but 3 in a million pairs
are, at 0.1 one in 20,000."""

_BASE = 0x9E3779B97F4A7C15
_MIX1, _MIX2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_ATTEMPTS = 24


@cache
def _fold() -> np.ndarray:
    """Code point to the one it is compared as; 0: left out."""
    table = np.zeros(0x110000, np.uint32)
    table[0x80:] = np.arange(0x80, 0x110000)
    for first, last in (
        (0x80, 0xBF),
        (0x2000, 0x2BFF),
        (0x3000, 0x3004),
        (0x3007 + 1, 0x3020),
        (0xFE00, 0xFE6F),
        (0xFF00, 0xFF65),
    ):
        table[first : last + 1] = 0
    table[0xE000:0xF900] = 0
    table[0x1F000:0x20000] = 0
    for first, last, shift in ((ord("0"), ord("9"), 0), (ord("a"), ord("z"), 0), (ord("A"), ord("Z"), 32)):
        codes = np.arange(first, last + 1)
        table[codes] = table[codes + 0xFEE0] = codes + shift
    _, traditional, simplified = (
        (resources.files("fangcun") / "corpus" / "traditional.txt").read_text(encoding="utf-8").splitlines()
    )
    table[[ord(c) for c in traditional]] = [ord(c) for c in simplified]
    return table


@cache
def _tries() -> np.ndarray:
    """For each bin, the bins that it borrows from when it is empty, in turn (Shrivastava 2017)."""
    return np.random.default_rng(5).integers(0, BINS, (_ATTEMPTS, BINS))


def comparable(text: str) -> np.ndarray:
    """The characters of `text` that are compared, as uint32 code points."""
    codes = _fold()[np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)]
    return codes[codes != 0]


def shingles(codes: np.ndarray) -> np.ndarray:
    """A 64-bit hash of every run of five characters, in order. A shorter text is one run."""
    n = min(SHINGLE, len(codes))
    if not n:
        return np.zeros(0, np.uint64)
    wide = codes.astype(np.uint64)
    total = np.zeros(len(codes) - n + 1, np.uint64)
    for offset in range(n):
        total *= np.uint64(_BASE)
        total += wide[offset : offset + len(total)]
    total ^= total >> np.uint64(30)
    total *= _MIX1
    total ^= total >> np.uint64(27)
    total *= _MIX2
    total ^= total >> np.uint64(31)
    return total


def text_hash(codes: np.ndarray) -> int:
    """64 bits of what is compared: equal for texts that differ in punctuation, width, case or script variant alone."""
    import hashlib

    return int.from_bytes(hashlib.blake2b(codes.tobytes(), digest_size=8).digest(), "little")


def signature(hashes: np.ndarray) -> np.ndarray:
    """BINS values, uint16: of each bin (eight bits of the hash) the least of the sixteen bits that follow."""
    values = np.sort(hashes >> np.uint64(40))
    bins = (values >> np.uint64(16)).astype(np.int64)
    result = np.full(BINS, EMPTY, np.uint16)
    first = np.append(True, bins[1:] != bins[:-1]) if len(bins) else np.zeros(0, bool)
    # 0xFFFF itself is a value in one of 65,536 cases; it gives way to its neighbour.
    result[bins[first]] = np.minimum(values[first] & np.uint64(0xFFFF), np.uint64(EMPTY - 1)).astype(np.uint16)
    return result


def similarity(signatures: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Estimated Jaccard similarity of (N, BINS) signatures with `other` of the same shape or (BINS,).

    Unbiased; its standard error is sqrt(J (1 - J) / BINS) for long texts and less for texts of fewer runs than bins.
    """
    there = (signatures != EMPTY) | (other != EMPTY)
    same = (signatures == other) & there
    return same.sum(-1) / np.maximum(1, there.sum(-1))


def band_keys(signatures: np.ndarray, band: int) -> np.ndarray:
    """(N, BINS) signatures -> (N,) uint64: the six places of a band as one key. Empty bins borrow from others, so that short
    texts have bands too."""
    keys = np.zeros(len(signatures), np.uint64)
    for place in range(band * ROWS, (band + 1) * ROWS):
        values = signatures[:, place].copy()
        for source in _tries()[:, place]:
            empty = np.flatnonzero(values == EMPTY)
            if not len(empty):
                break
            values[empty] = signatures[empty, source]
        keys *= np.uint64(_BASE)
        keys += values + np.uint64(1)
    return keys
