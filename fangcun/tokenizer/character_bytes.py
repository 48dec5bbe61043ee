"""Merging the bytes of single characters: the part of byte-level BPE that needs a table of characters only.

Bytes are merged inside a character, never across two: no token holds a part of one character and a part of the next.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise

Pair = tuple[int, int]


class CharacterBytes:
    """Characters spelled in byte tokens, weighted by their counts, of which pairs are merged.

    `byte_ids[b]` is the token id of byte b. Pairs of equal count are taken by the smaller ids.
    """

    def __init__(self, counts: dict[str, int], byte_ids: list[int]) -> None:
        self._weight = counts
        self._spelling = {c: [byte_ids[b] for b in c.encode()] for c in counts}
        self._count: defaultdict[Pair, int] = defaultdict(int)
        self._where: defaultdict[Pair, set[str]] = defaultdict(set)
        self._heap: list[tuple[int, Pair]] = []
        for character in self._spelling:
            self._enter(character)
        self._heap = [(-n, pair) for pair, n in self._count.items()]
        heapq.heapify(self._heap)

    def _enter(self, character: str) -> None:
        ids = self._spelling[character]
        for pair in pairwise(ids):
            self._count[pair] += self._weight[character]
            self._where[pair].add(character)

    def best(self) -> tuple[int, int, int] | None:
        """The most frequent pair inside characters, (count, left, right), or None."""
        while self._heap:
            bound, pair = self._heap[0]
            if self._count[pair] == -bound:
                return (-bound, *pair) if bound else None
            heapq.heappop(self._heap)
        return None

    def merge(self, left: int, right: int, new: int) -> list[str]:
        """Make every `left` `right` one token `new`; returns the characters that are one token now."""
        whole = []
        changed: set[Pair] = set()
        for character in sorted(self._where.get((left, right), ())):
            ids = self._spelling[character]
            for pair in pairwise(ids):
                self._count[pair] -= self._weight[character]
                self._where[pair].discard(character)
                changed.add(pair)
            out: list[int] = []
            for token in ids:
                if token == right and out and out[-1] == left:
                    out[-1] = new
                else:
                    out.append(token)
            self._spelling[character] = out
            self._enter(character)
            changed.update(pairwise(out))
            if len(out) == 1:
                whole.append(character)
        for pair in sorted(changed):
            if self._count[pair] > 0:
                heapq.heappush(self._heap, (-self._count[pair], pair))
        return whole

    def spelling(self, character: str) -> list[int]:
        """The tokens of a character at present."""
        return self._spelling[character]


Emit = Callable[[int, int], int]
"""Takes the merge of two token ids into the vocabulary and returns the id of the whole."""


def force_whole(table: CharacterBytes, characters: list[str], byte_ids: list[int], emit: Emit) -> list[tuple[str, int]]:
    """Make each of `characters` one token, its bytes merged from the left. Returns the characters whole by then."""
    whole: list[tuple[str, int]] = []
    done: dict[Pair, int] = {}
    for character in characters:
        token = byte_ids[character.encode()[0]]
        for byte in character.encode()[1:]:
            pair = (token, byte_ids[byte])
            if pair not in done:
                done[pair] = emit(*pair)
                whole += [(c, done[pair]) for c in table.merge(*pair, done[pair])]
            token = done[pair]
    return whole
