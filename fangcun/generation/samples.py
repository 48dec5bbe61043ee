"""One sample in the making: the ids it has read and written, what it draws next, and when it ends."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from fangcun.errors import FangcunError
from fangcun.generation.memory import Memory
from fangcun.generation.sampling import SamplingSettings, draw


class Sample:
    """The rules of the context: an empty prompt starts from the end-of-document token; of a long one the last `block_size`
    ids are read; a full context goes on from its last half, read anew from position 0."""

    def __init__(
        self,
        prompt_ids: Sequence[int],
        settings: SamplingSettings,
        *,
        vocab_size: int,
        block_size: int,
        end_id: int,
        stop_ids: Collection[int],
        max_new_tokens: int,
        generator: torch.Generator,
    ) -> None:
        """stop_ids: end the sample besides `end_id`. Ids >= `vocab_size` are never drawn."""
        self.settings, self.vocab_size, self.block_size = settings, vocab_size, block_size
        self.ends = {end_id, *stop_ids}
        self.max_new_tokens, self.generator = max_new_tokens, generator
        self.context = list(prompt_ids[-block_size:]) if prompt_ids else [end_id]
        self.memory = Memory(settings, prompt_ids)
        self.n_tokens = 0
        """Drawn so far, an end included."""
        self.ended = False
        """Whether an end was drawn."""

    def choose(self, logits: Tensor) -> int | None:
        """Draw from float32 logits (V,). None: an end was drawn. Otherwise the id is the last of `context`."""
        if self.memory.active:
            logits = self.memory.apply(logits)
        index = draw(logits, self.settings, vocab_size=self.vocab_size, generator=self.generator)
        self.n_tokens += 1
        if index in self.ends:
            self.ended = True
            return None
        self.memory.add(index)
        self.context.append(index)
        return index

    @property
    def full(self) -> bool:
        """Whether no more tokens may be drawn."""
        return self.n_tokens >= self.max_new_tokens

    def shorten(self) -> bool:
        """Where the context is longer than the model reads, cut it to its last half; True: it is to be read anew."""
        if len(self.context) <= self.block_size:
            return False
        self.context = self.context[-max(1, self.block_size // 2) :]
        return True


def make_generator(seed: int | None, sample: int = 0) -> torch.Generator:
    """A generator on the CPU of its own, so that sampling never moves torch's global one. None: a fresh seed.

    Sample 0 draws as if it were alone; the others' seeds are far from each other (multiples of the golden ratio).
    """
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    elif not isinstance(seed, int) or isinstance(seed, bool) or not -(2**63) <= seed < 2**64:
        raise FangcunError(f"seed is {seed!r}, expected a whole number of at most 64 bits, or None.")
    else:
        generator.manual_seed(seed if not sample else (seed + sample * 0x9E3779B97F4A7C15) % 2**64)
    return generator
