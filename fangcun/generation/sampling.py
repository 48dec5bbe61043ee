"""From the logits of one position to the next token: penalty, temperature, top-k, top-p, then one draw.

The filters are pure functions on float32 logits of shape (V,) or (B, V), and `filter_logits` applies them in the order
of Hugging Face transformers: repetition penalty, temperature, top-k, top-p. Randomness is a `torch.Generator` on the
CPU, whatever the device of the logits, so that a seed means the same draws everywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fangcun.errors import FangcunError


@dataclass(frozen=True)
class SamplingSettings:
    """How a token is drawn. Wrong values raise FangcunError, which names the argument."""

    temperature: float = 0.8
    """Logits are divided by it. 0 is greedy: always the likeliest token."""

    top_k: int | None = 50
    """Only the k likeliest tokens can be drawn; 1 is greedy. None: all."""

    top_p: float = 1.0
    """Only the likeliest tokens that together reach this probability can be drawn."""

    repetition_penalty: float = 1.0
    """Above 1 makes tokens that already stand in the context less likely (Keskar et al. 2019, section 4.1)."""

    def __post_init__(self) -> None:
        if not _is_number(self.temperature) or not 0 <= self.temperature < math.inf:
            raise FangcunError(
                f"temperature is {self.temperature!r}, expected a number >= 0 (0 is greedy, 0.8 is usual)."
            )
        if self.top_k is not None and (
            not isinstance(self.top_k, int) or isinstance(self.top_k, bool) or self.top_k < 1
        ):
            raise FangcunError(f"top_k is {self.top_k!r}, expected a whole number >= 1, or None for all tokens.")
        if not _is_number(self.top_p) or not 0 < self.top_p <= 1:
            raise FangcunError(
                f"top_p is {self.top_p!r}, expected a number above 0 and at most 1 (1 keeps all tokens)."
            )
        if not _is_number(self.repetition_penalty) or not 0 < self.repetition_penalty < math.inf:
            raise FangcunError(
                f"repetition_penalty is {self.repetition_penalty!r}, expected a number above 0 (1 is none, 1.1 is mild)."
            )

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken, without a draw."""
        return self.temperature == 0 or self.top_k == 1


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def forbid_ids_from(logits: Tensor, vocab_size: int) -> Tensor:
    """Logits (..., V) with every id >= `vocab_size` at -inf: rows that only pad the embedding are no tokens."""
    if vocab_size >= logits.shape[-1]:
        return logits
    logits = logits.clone()
    logits[..., vocab_size:] = -math.inf
    return logits


def penalize_repetition(logits: Tensor, seen_ids: Tensor, penalty: float) -> Tensor:
    """Logits (V,) or (B, V) with those of `seen_ids`, (n,) or (B, n), divided by `penalty` if positive, else multiplied.

    An id that stands several times in `seen_ids` is penalised once.
    """
    if penalty == 1 or seen_ids.shape[-1] == 0:
        return logits
    seen = logits.gather(-1, seen_ids)
    return logits.scatter(-1, seen_ids, torch.where(seen < 0, seen * penalty, seen / penalty))


def keep_top_k(logits: Tensor, k: int | None) -> Tensor:
    """Logits (..., V) with all but the k largest at -inf. Ties with the k-th largest stay."""
    if k is None or k >= logits.shape[-1]:
        return logits
    threshold = logits.topk(k, dim=-1).values[..., -1:]
    return logits.masked_fill(logits < threshold, -math.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Logits (..., V) with only the smallest set of likeliest tokens whose probability reaches `p`, the rest at -inf.

    The likeliest token always stays (Holtzman et al. 2020).
    """
    if p >= 1:
        return logits
    ascending, order = logits.sort(dim=-1)
    # A token goes when it and all less likely ones together hold at most 1 - p. Summing from the unlikely side keeps
    # the small numbers exact.
    drop = ascending.softmax(dim=-1).cumsum(dim=-1) <= 1 - p
    drop[..., -1] = False
    return logits.masked_fill(drop.scatter(-1, order, drop), -math.inf)


def filter_logits(
    logits: Tensor, settings: SamplingSettings, *, vocab_size: int, seen_ids: Tensor | None = None
) -> Tensor:
    """Logits (V,) or (B, V) after every filter; their softmax is the distribution that is drawn from.

    Greedy settings stop after the penalty: neither temperature nor top-k nor top-p moves the largest logit.
    """
    logits = forbid_ids_from(logits, vocab_size)
    if seen_ids is not None:
        logits = penalize_repetition(logits, seen_ids, settings.repetition_penalty)
    if settings.greedy:
        return logits
    if settings.temperature != 1:
        # The largest logit is brought to 0 first, so that a tiny temperature underflows to greedy instead of overflowing.
        logits = (logits - logits.amax(dim=-1, keepdim=True)) / settings.temperature
    return keep_top_p(keep_top_k(logits, settings.top_k), settings.top_p)


def sample(
    logits: Tensor,
    settings: SamplingSettings,
    *,
    vocab_size: int,
    seen_ids: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw the next id from logits (V,) -> () or (B, V) -> (B,), int64 on the logits' device.

    `seen_ids` are the ids for the repetition penalty, `generator` lies on the CPU (None: torch's global one). Raises
    FangcunError where the logits hold NaN or +inf, which means broken weights.
    """
    logits = filter_logits(logits.float(), settings, vocab_size=vocab_size, seen_ids=seen_ids)
    if not bool(torch.isfinite(logits.amax(dim=-1)).all()):
        raise FangcunError(
            "The model's logits are not finite, so no token can be chosen: its weights hold NaN or infinity, or float16 overflows. Use an earlier checkpoint, or dtype float32."
        )
    if settings.greedy:
        return logits.argmax(dim=-1)
    probabilities = logits.softmax(dim=-1).cpu()
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1).to(logits.device)
