"""Which documents are copies of which: equal after folding, or with nearly the same character 5-grams.

Pairs that share a band of their signatures are compared by the whole signature (locality-sensitive hashing: Indyk and
Motwani, 1998); the pairs found make groups; in a group the first document by content is kept, and what is similar to it
goes; then the next one that is left, and so on. So each dropped document is itself similar to one that is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from fangcun.corpus.dedup.sketches import PLACES, SHINGLE_CHARACTERS, Sketches
from fangcun.corpus.dedup.spool import BANDS, Spool, release
from fangcun.errors import FangcunError

EXACT, NEAR = 1, 2
_NEIGHBOURS = 8
_PAIRS = 1 << 13


@dataclass(frozen=True)
class Copies:
    """What `Duplicates.find` found; a row a document, in the order in which they were added."""

    copy_of: np.ndarray
    """int64: the number of the kept document that this one is a copy of; -1 where it is kept itself."""
    kind: np.ndarray
    """uint8: 0 kept, EXACT, NEAR: how it compares with the document kept."""
    similarity: np.ndarray
    """float32: the estimated Jaccard similarity to the document kept; 1 for exact copies, 0 for those kept."""


class Duplicates:
    """Collects sketches of documents, then finds the copies among them.

    `threshold` is the Jaccard similarity of 5-gram sets from which two documents are copies. `folding` is the
    fingerprint of the folding used. Sketches wait in `folder` (660 bytes a document; the caller deletes it); opened
    again, it goes on where whole blocks of 4096 documents ended: `len()` documents are there, the caller adds the rest.
    Of a group the document with most characters that count is kept, of equally long ones that with the smallest id.
    A page contained in a longer one is not looked for. Documents of fewer than five characters that count have exact
    copies only. Time grows with the documents, but in a group of pages from one template, each as similar to the next as
    the threshold, with the members times those kept: 20,000 pages of which 5,000 are kept take seconds.
    """

    def __init__(self, folder: Path, *, threshold: float = 0.75, folding: str = "") -> None:
        if not 0.3 <= threshold <= 1:
            raise FangcunError(
                f"The similarity threshold of near-duplicates is {threshold}. Expected 0.3 to 1: below, the bands miss most pairs. 0.75 is usual."
            )
        self.threshold = threshold
        self._spool = Spool(folder, {"folding": folding})

    def __len__(self) -> int:
        return self._spool.documents

    def __enter__(self) -> Duplicates:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; they stay in the folder."""
        self._spool.close()

    def keep(self, documents: int) -> int:
        """Forget all but the first `documents`; returns how many are left: fewer, where a block of 4096 was begun."""
        return self._spool.keep(documents)

    def flush(self) -> None:
        """Write the block that was begun too, so that `add_folder` finds all documents."""
        self._spool.open()

    def add_folder(self, folder: Path, documents: int) -> None:
        """The next documents are all those that another one of these has collected in its folder, and flushed."""
        self._spool.add_spool(folder, documents)

    def add(self, sketches: Sketches, ids: Sequence[str]) -> None:
        """The next documents. `ids` are `Document.id`: hexadecimal, 16 digits."""
        self._spool.add(sketches, np.array([int(identity, 16) for identity in ids], np.uint64))

    def find(self, *, near: bool = True) -> Copies:
        """The copies among all documents added; `near=False` looks for exact ones only.

        Takes about 100 bytes of memory a document; of the signatures a few thousand are in memory at a time. More may be added and found afterwards.
        """
        documents, signatures, bands = self._spool.open()
        count = len(documents)
        copies = Copies(np.full(count, -1, np.int64), np.zeros(count, np.uint8), np.zeros(count, np.float32))
        # By content: longest first, then by id. All that follows works on places in this order.
        order = np.lexsort((documents["id"], ~documents["length"]))
        live = _exact(documents["exact"], order, copies)
        if near:
            live = live[documents["length"][live] >= SHINGLE_CHARACTERS]
            parent = _linked(live, signatures, bands, self.threshold)
            _choose(live, parent, signatures, self.threshold, copies)
            _follow(copies)
        return copies


def _exact(hashes: np.ndarray, order: np.ndarray, copies: Copies) -> np.ndarray:
    """Mark exact copies; returns the others, in order."""
    hashes = hashes[order]
    by_hash = np.argsort(hashes, kind="stable")
    grouped = hashes[by_hash]
    first = np.ones(len(order), bool)
    first[1:] = grouped[1:] != grouped[:-1]
    keepers = by_hash[np.flatnonzero(first)[np.cumsum(first) - 1]] if len(order) else by_hash
    gone = order[by_hash[~first]]
    copies.copy_of[gone] = order[keepers[~first]]
    copies.kind[gone], copies.similarity[gone] = EXACT, 1
    return order[np.sort(by_hash[first])]


def _linked(live: np.ndarray, signatures: np.ndarray, bands: np.ndarray, threshold: float) -> np.ndarray:
    """For each place in `live` a place of its group, the same for all of a group."""
    parent = np.arange(len(live))
    for band in range(BANDS):
        keys = bands[:, band].reshape(-1)[live]
        release(bands)
        by_key = np.argsort(keys, kind="stable")
        keys = keys[by_key]
        new = np.ones(len(live), bool)
        new[1:] = keys[1:] != keys[:-1]
        starts = np.flatnonzero(new)
        run_start = starts[np.cumsum(new) - 1] if len(starts) else starts
        shared = np.flatnonzero(~new)
        for distance in range(_NEIGHBOURS + 1):
            left = run_start[shared] if distance == 0 else shared - distance
            here = left >= run_start[shared] if distance else np.ones(len(shared), bool)
            left, right = by_key[left[here]], by_key[shared[here]]
            apart = parent[left] != parent[right]
            _link(left[apart], right[apart], live, signatures, threshold, parent)
    return parent


def _link(
    left: np.ndarray, right: np.ndarray, live: np.ndarray, signatures: np.ndarray, threshold: float, parent: np.ndarray
) -> None:
    """Join the groups of the pairs that are similar. `parent` is flat before and after."""
    joined = False
    for start in range(0, len(left), _PAIRS):
        a, b = left[start : start + _PAIRS], right[start : start + _PAIRS]
        similar = _similarity(signatures[live[a]], signatures[live[b]]) >= threshold
        for one, other in zip(a[similar].tolist(), b[similar].tolist(), strict=True):
            one, other = _root(parent, one), _root(parent, other)
            if one != other:
                parent[max(one, other)] = min(one, other)
                joined = True
        release(signatures)  # each row is a page: some thousand pairs are many megabytes
    while joined:
        flat = parent[parent]
        joined = bool((flat != parent).any())
        parent[:] = flat


def _root(parent: np.ndarray, place: int) -> int:
    while (above := int(parent[place])) != place:
        parent[place] = parent[above]
        place = above
    return place


def _similarity(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.count_nonzero(left == right, axis=-1).astype(np.float32) / np.float32(PLACES)


def _choose(live: np.ndarray, parent: np.ndarray, signatures: np.ndarray, threshold: float, copies: Copies) -> None:
    """In each group keep the first in order, drop what is similar to it, and go on with what is left."""
    by_group = np.argsort(parent, kind="stable")
    ends = np.flatnonzero(np.diff(parent[by_group], append=-1)) + 1
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64) if len(ends) else ends
    several = ends - starts > 1
    for start, end in zip(starts[several].tolist(), ends[several].tolist(), strict=True):
        members = live[by_group[start:end]]
        while len(members) > 1:
            kept, members = members[0], members[1:]
            similarity = np.concatenate(
                [
                    _similarity(signatures[members[at : at + _PAIRS]], signatures[kept])
                    for at in range(0, len(members), _PAIRS)
                ]
            )
            similar = similarity >= threshold
            release(signatures)
            gone = members[similar]
            copies.copy_of[gone], copies.kind[gone], copies.similarity[gone] = kept, NEAR, similarity[similar]
            members = members[~similar]


def _follow(copies: Copies) -> None:
    """An exact copy of a document that went as a near one is a near copy of what that one is a copy of."""
    copied = np.flatnonzero(copies.kind == EXACT)
    middle = copies.copy_of[copied]
    moved = copies.kind[middle] == NEAR
    copied, middle = copied[moved], middle[moved]
    copies.copy_of[copied], copies.kind[copied] = copies.copy_of[middle], NEAR
    copies.similarity[copied] = copies.similarity[middle]
