"""A model with a cache row for each of several sequences: read a prompt into a row, read all first rows on by one token.

What was read before is not read again: a row that begins with the same ids lends them, whether its sequence still runs
or has ended.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fangcun.model import Transformer
from fangcun.model.cache import SlotCache


class Rows:
    """`active` first rows hold sequences that write; the rest are free, and keep what they held until it is replaced."""

    def __init__(self, model: Transformer, rows: int, max_length: int) -> None:
        """rows: sequences at once. max_length: positions a row, at most the model's block_size."""
        self.model, self.size = model, rows
        weight = model.embedding.weight
        self.device = weight.device
        self.cache = SlotCache(model.config, rows, max_length, model.cache_dtype, weight.device)
        self.ids: list[list[int]] = [[] for _ in range(rows)]
        """What each row's keys and values stand for."""
        self.active = 0
        self._used = [0] * rows
        self._clock = 0

    def borrow(self, row: int, ids: Sequence[int]) -> int:
        """Make free row `row` begin with as many of `ids` as any row knows, but the last; return how many."""
        self._clock += 1
        best, length = row, 0
        for other in range(self.size):
            common = _common(self.ids[other], ids)
            if common > length:
                best, length = other, common
        length = min(length, len(ids) - 1)
        if self.ids[row] and (best != row or not length):
            self._keep(row, but=best)
        self.cache.copy(best, row, length)
        self._used[best] = self._clock
        self.ids[row] = list(ids[:length])
        self._used[row] = self._clock
        return length

    def _keep(self, row: int, but: int) -> None:
        """Move what free row `row` holds to the free row that was used least recently, unless that is itself or `but`."""
        free = [other for other in range(self.active, self.size) if other != but or other == row]
        oldest = min(free, key=lambda other: self._used[other])
        if oldest != row:
            self.cache.copy(row, oldest, len(self.ids[row]))
            self.ids[oldest], self._used[oldest] = self.ids[row], self._used[row]

    def read(self, row: int, ids: Sequence[int], *, every: bool = False) -> Tensor:
        """Read `ids` behind what `row` holds; float32 logits (V,) of the id that follows, or, with `every`, hidden states
        (T, n_embd) of all of them."""
        cache = self.cache.row(row)
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            hidden = self.model.hidden(torch.tensor([list(ids)], device=self.device), cache)[0]
            self.ids[row] += ids
            # The head is applied to the last position alone: over a whole prompt it would cost more than the model.
            return hidden if every else self.logits(hidden[-1])

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., n_embd) -> float32 (..., V)."""
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            return self.model.logits(hidden).float()

    def step(self, ids: Sequence[int]) -> Tensor:
        """Read one id behind each of the first len(ids) rows; float32 logits (rows, V)."""
        cache = self.cache.row(0) if len(ids) == 1 else self.cache.step(len(ids))
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            hidden = self.model.hidden(torch.tensor(ids, device=self.device)[:, None], cache)[:, 0]
            for row, index in enumerate(ids):
                self.ids[row].append(index)
            return self.model.logits(hidden).float()

    def forget(self, row: int) -> None:
        """Row `row` starts anew."""
        self.cache.lengths[row] = 0
        self.ids[row] = []

    def swap(self, one: int, other: int) -> None:
        """Rows change places."""
        if one != other:
            self.cache.swap(one, other)
            self.ids[one], self.ids[other] = self.ids[other], self.ids[one]
            self._used[one], self._used[other] = self._used[other], self._used[one]


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the longest common beginning."""
    length = min(len(one), len(other))
    if one[:length] == other[:length]:
        return length
    low, high = 0, length  # beginnings up to `low` agree, up to `high` they do not
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low
