"""Rules that look back on what was read and written: penalties, runs that may not come twice, loops that have to end."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fangcun.generation.sampling import SamplingSettings, penalize_repetition


class Memory:
    """What one sample has read and written, as far as its settings look back on it."""

    def __init__(self, settings: SamplingSettings, prompt_ids: Sequence[int]) -> None:
        self.settings = settings
        self._penalizes = settings.repetition_penalty != 1
        self._counts = settings.frequency_penalty != 0 or settings.presence_penalty != 0
        self._seen: dict[int, None] = dict.fromkeys(prompt_ids) if self._penalizes else {}
        self._written: dict[int, int] = {}
        self._length = settings.no_repeat_ngram
        self._followers: dict[tuple[int, ...], list[int]] = {}
        self._last: deque[int] = deque(maxlen=max(self._length - 1, 0))
        self._loops = Loops(settings.max_repeats) if settings.max_repeats else None
        for index in prompt_ids:
            if self._length:
                self._remember_run(index)
            if self._loops is not None:
                self._loops.add(index)

    @property
    def active(self) -> bool:
        """Whether `apply` changes anything."""
        return self._penalizes or self._counts or self._length > 0 or self._loops is not None

    def add(self, index: int) -> None:
        """An id was written."""
        if self._penalizes:
            self._seen[index] = None
        if self._counts:
            self._written[index] = self._written.get(index, 0) + 1
        if self._length:
            self._remember_run(index)
        if self._loops is not None:
            self._loops.add(index)

    def apply(self, logits: Tensor) -> Tensor:
        """Float32 logits (V,) with the penalties taken off; the ones given stay as they are."""
        settings = self.settings
        if self._seen:
            seen = torch.tensor(list(self._seen), dtype=torch.int64, device=logits.device)
            logits = penalize_repetition(logits, seen, settings.repetition_penalty)
        if self._written:
            ids = torch.tensor(list(self._written), dtype=torch.int64, device=logits.device)
            counts = torch.tensor(list(self._written.values()), dtype=logits.dtype, device=logits.device)
            logits = logits.index_add(
                0, ids, -(counts * settings.frequency_penalty + settings.presence_penalty)
            )  # fmt: skip
        if self._length and len(self._last) == self._length - 1 and (known := self._followers.get(tuple(self._last))):
            logits = _forbid(logits, known)
        if self._loops is not None and (going_on := self._loops.going_on()):
            logits = _forbid(logits, going_on)
        return logits

    def _remember_run(self, index: int) -> None:
        if len(self._last) == self._length - 1:
            self._followers.setdefault(tuple(self._last), []).append(index)
        self._last.append(index)


class Loops:
    """Which units the last ids repeat, and how often: one number for each length of a unit, kept up to date."""

    LONGEST = 128
    """Tokens of the longest unit that is looked for."""

    SHORTEST_LOOP = 16
    """A loop of fewer tokens altogether is none: 哈哈哈哈 is fine."""

    def __init__(self, max_repeats: int) -> None:
        self._max_repeats = max_repeats
        self._ids = np.full(2 * self.LONGEST, -1, np.int64)
        """The newest ids, twice the length kept so that they are moved seldom."""
        self._end = self.LONGEST
        self._matches = np.zeros(self.LONGEST, np.int64)
        """[p - 1]: how many of the last ids in a row equal the one p before."""
        periods = np.arange(1, self.LONGEST + 1)
        self._limit = np.maximum((max_repeats - 1) * periods, self.SHORTEST_LOOP - periods)

    def add(self, index: int) -> None:
        """An id was read or written."""
        if self._end == len(self._ids):
            self._ids[: self.LONGEST] = self._ids[self.LONGEST :].copy()
            self._end = self.LONGEST
        # Newest first: the id p before stands at p - 1.
        before = self._ids[self._end - self.LONGEST : self._end][::-1]
        self._matches = np.where(before == index, self._matches + 1, 0)
        self._ids[self._end] = index
        self._end += 1

    def going_on(self) -> list[int]:
        """Ids that would go on a loop that stands as often as it may."""
        periods = np.flatnonzero(self._matches >= self._limit) + 1
        return sorted({int(self._ids[self._end - period]) for period in periods})


def _forbid(logits: Tensor, ids: list[int]) -> Tensor:
    """Logits with those of `ids` at -inf. A vocabulary of a few characters can run out of ids: then the rule gives way."""
    forbidden = logits.clone()
    forbidden[ids] = -math.inf
    return forbidden if bool((forbidden > -math.inf).any()) else logits
