"""Training documents that contain text of an exam or of the held-out split.

A document is contaminated by a reference if they share a run of 32 characters, or, by a reference of 13 to 31
characters, if it contains the whole of it; counted after folding. The index holds a hash of 13 characters at every 20th
place of the references: a shared run of 32 characters contains one of them whole, wherever it starts, so nothing is
missed that a full index would find, in a twentieth of the memory. Each hit is then compared character by character.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fangcun.corpus.dedup.folding import Folding
from fangcun.corpus.dedup.sketches import mix
from fangcun.errors import FangcunError

ANCHOR_CHARACTERS = 13
"""Shortest reference, and run that is looked up: 13 characters as in the usual 13-gram overlap (GPT-3, 2020)."""
_HITS = 4096
_BASE = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Overlap:
    """The longest run that a document shares with a reference."""

    reference: str
    """Its name."""
    characters: int
    """Length of the run after folding."""
    text: str
    """The run as it stands in the document."""
    start: int
    """Index of its first character in the document."""


class References:
    """The index of reference texts; picklable. About 5 bytes a character that counts.

    `references` yields (name, text); `ngram_characters` is the run that counts as contamination. `too_short` names the
    references below 13 characters that count: they are not looked for, since everything would contain them.
    """

    def __init__(self, references: Iterable[tuple[str, str]], folding: Folding, *, ngram_characters: int = 32) -> None:
        if ngram_characters < ANCHOR_CHARACTERS:
            raise FangcunError(
                f"Decontamination was asked for runs of {ngram_characters} characters. Expected at least {ANCHOR_CHARACTERS}; 32 is usual."
            )
        self.folding, self.ngram_characters = folding, ngram_characters
        self.names: list[str] = []
        self.too_short: list[str] = []
        texts, starts, anchors, places = [], [0], [], []
        for name, text in references:
            characters, _ = folding.fold_one(text)
            if len(characters) < ANCHOR_CHARACTERS:
                self.too_short.append(name)
                continue
            # A reference below a whole run has one anchor, its beginning.
            step = ngram_characters - ANCHOR_CHARACTERS + 1
            at = np.arange(0, len(characters) - ANCHOR_CHARACTERS + 1, step)[
                : 1 if len(characters) < ngram_characters else None
            ]
            anchors.append(_run_hashes(characters)[at])
            places.append(at + starts[-1])
            self.names.append(name)
            texts.append(characters)
            starts.append(starts[-1] + len(characters))
        self._text = np.concatenate([np.zeros(0, np.uint32), *texts])
        self._starts = np.array(starts, np.int64)
        hashes = np.concatenate([np.zeros(0, np.uint64), *anchors])
        order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[order]
        self._places = np.concatenate([np.zeros(0, np.int64), *places])[order]
        # One look-up in this table says no to nearly all places of a clean document.
        self._shift = np.uint64(64 - min(28, max(12, (len(hashes) * 32).bit_length())))
        self._possible = np.zeros(1 << (64 - int(self._shift)), bool)
        self._possible[hashes >> self._shift] = True

    def __len__(self) -> int:
        return len(self.names)

    def find(self, text: str) -> list[Overlap]:
        """What the document shares with the references, one entry a reference, the longest runs first."""
        characters, places = self.folding.fold_one(text)
        if len(characters) < ANCHOR_CHARACTERS or not len(self._hashes):
            return []
        hashes = _run_hashes(characters)
        maybe = np.flatnonzero(self._possible[hashes >> self._shift])
        low = np.searchsorted(self._hashes, hashes[maybe], "left")
        high = np.searchsorted(self._hashes, hashes[maybe], "right")
        hit = low < high
        at, low, many = maybe[hit], low[hit], (high - low)[hit]
        best: dict[int, tuple[int, int]] = {}
        done: dict[int, tuple[int, int]] = {}  # alignment to the run seen last on it: (start, end) in the document
        for begin in range(0, len(at), _HITS):
            piece = slice(begin, begin + _HITS)
            self._look(characters, at[piece], low[piece], many[piece], best, done)
        found = sorted(best.items(), key=lambda item: (-item[1][0], item[0]))
        return [
            Overlap(
                self.names[number], length, text[places[start] : places[start + length - 1] + 1], int(places[start])
            )
            for number, (length, start) in found
        ]

    def _look(
        self,
        characters: np.ndarray,
        at: np.ndarray,
        low: np.ndarray,
        many: np.ndarray,
        best: dict[int, tuple[int, int]],
        done: dict[int, tuple[int, int]],
    ) -> None:
        """Follow the anchors `low` to `low + many` met at the places `at` of the document."""
        rows = np.repeat(np.arange(len(at)), many)
        anchors = np.arange(len(rows)) - (np.cumsum(many) - many)[rows] + low[rows]
        places = self._places[anchors]
        numbers = np.searchsorted(self._starts, places, "right") - 1
        wholes = self._starts[numbers + 1] - self._starts[numbers]
        for here, place, number, whole in zip(
            at[rows].tolist(), places.tolist(), numbers.tolist(), wholes.tolist(), strict=True
        ):
            length = best.get(number, (0, 0))[0]
            known = done.get(place - here)
            if length == whole or (known and known[0] <= here < known[1]):
                continue
            start, end = self._extent(characters, here, place, number)
            if end > start:
                done[place - here] = (start, end)
            if end - start >= min(self.ngram_characters, whole) and end - start > length:
                best[number] = (end - start, start)

    def _extent(self, characters: np.ndarray, at: int, place: int, number: int) -> tuple[int, int]:
        """The run around an anchor that document and reference share, as (start, end) in the document."""
        begin, finish = int(self._starts[number]), int(self._starts[number + 1])
        back = min(at, place - begin)
        left = _agree(characters[at - back : at][::-1], self._text[place - back : place][::-1])
        right = _agree(characters[at:], self._text[place:finish])
        return at - left, at + right


def _agree(one: np.ndarray, other: np.ndarray) -> int:
    """How many first elements are equal."""
    length, size = min(len(one), len(other)), 64
    done = 0
    while done < length:
        end = min(length, done + size)
        differ = np.flatnonzero(one[done:end] != other[done:end])
        if len(differ):
            return done + int(differ[0])
        done, size = end, size * 4
    return length


def _run_hashes(characters: np.ndarray) -> np.ndarray:
    """A 64-bit hash of each run of 13 code points: a polynomial by Horner's rule, mixed."""
    count = len(characters) - ANCHOR_CHARACTERS + 1
    hashes = characters[:count].astype(np.uint64)
    for offset in range(1, ANCHOR_CHARACTERS):
        hashes *= _BASE
        hashes += characters[offset : offset + count]
    return mix(hashes)
