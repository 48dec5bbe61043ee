"""Rules that look back on what was read and written: penalties, and runs that may not come twice."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

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

    @property
    def active(self) -> bool:
        """Whether `apply` changes anything."""
        return self._penalizes or self._counts or self._length > 0

    def add(self, index: int) -> None:
        """An id was written."""
        if self._penalizes:
            self._seen[index] = None
        if self._counts:
            self._written[index] = self._written.get(index, 0) + 1
        if self._length:
            self._remember_run(index)

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
        return logits

    def _remember_run(self, index: int) -> None:
        if len(self._last) == self._length - 1:
            self._followers.setdefault(tuple(self._last), []).append(index)
        self._last.append(index)


def _forbid(logits: Tensor, ids: list[int]) -> Tensor:
    """Logits with those of `ids` at -inf. A vocabulary of a few characters can run out of ids: then the rule gives way."""
    forbidden = logits.clone()
    forbidden[ids] = -math.inf
    return forbidden if bool((forbidden > -math.inf).any()) else logits
