"""From the logits of one position to the next token: penalties, temperature, top-k, top-p, min-p, then one draw.

The filters are pure functions on float32 logits of shape (V,) or (B, V), and `filter_logits` applies them in the order
of Hugging Face transformers: penalties, temperature, top-k, top-p, min-p. A draw takes one number from a
`torch.Generator` on the CPU, whatever the device of the logits, so that a seed means the same draws everywhere.
"""

from __future__ import annotations

import dataclasses
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

    min_p: float = 0.0
    """Only tokens with at least this share of the likeliest one's probability can be drawn (Nguyen et al. 2024)."""

    no_repeat_ngram: int = 0
    """No run of this many tokens is written twice (Paulus et al. 2017). The prompt does not count: it may be quoted, unlike
    in transformers' rule of that name. 0: no such rule."""

    frequency_penalty: float = 0.0
    """Taken off a token's logit for each time that it was written; the prompt does not count."""

    presence_penalty: float = 0.0
    """Taken off a token's logit once it was written; the prompt does not count."""

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
        if not _is_number(self.min_p) or not 0 <= self.min_p <= 1:
            raise FangcunError(f"min_p is {self.min_p!r}, expected a number from 0 (no limit) to 1 (greedy).")
        if (
            not isinstance(self.no_repeat_ngram, int)
            or isinstance(self.no_repeat_ngram, bool)
            or self.no_repeat_ngram < 0
        ):
            raise FangcunError(
                f"no_repeat_ngram is {self.no_repeat_ngram!r}, expected a whole number >= 0 (0 allows repetition)."
            )
        for name in ("frequency_penalty", "presence_penalty"):
            value = getattr(self, name)
            if not _is_number(value) or not -1e4 < value < 1e4:
                raise FangcunError(f"{name} is {value!r}, expected a number (0 is none, OpenAI's range is -2 to 2).")

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


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Logits (..., V) with tokens of less than `p` times the likeliest one's probability at -inf."""
    if p <= 0:
        return logits
    return logits.masked_fill(logits < logits.amax(dim=-1, keepdim=True) + math.log(p), -math.inf)


def filter_logits(
    logits: Tensor, settings: SamplingSettings, *, vocab_size: int, seen_ids: Tensor | None = None
) -> Tensor:
    """Logits (V,) or (B, V) after every filter; their softmax is the distribution that is drawn from.

    What depends on the order of the ids written (`no_repeat_ngram`, frequency and presence) is in `fangcun.generation.memory`. Greedy
    settings stop after the penalty: no later filter moves the largest logit.
    """
    logits = forbid_ids_from(logits, vocab_size)
    if seen_ids is not None:
        logits = penalize_repetition(logits, seen_ids, settings.repetition_penalty)
    return logits if settings.greedy else _shape(logits, settings)


def _shape(logits: Tensor, settings: SamplingSettings) -> Tensor:
    """Temperature, top-k, top-p and min-p on logits (..., V)."""
    if settings.temperature != 1:
        # The largest logit is brought to 0 first, so that a tiny temperature underflows to greedy instead of overflowing.
        logits = (logits - logits.amax(dim=-1, keepdim=True)) / settings.temperature
    return keep_min_p(keep_top_p(keep_top_k(logits, settings.top_k), settings.top_p), settings.min_p)


def draw(
    logits: Tensor, settings: SamplingSettings, *, vocab_size: int, generator: torch.Generator | None = None
) -> int:
    """The next id from logits (V,) on which the penalties are done: the distribution of `filter_logits`, made cheaply.

    Raises FangcunError where the logits hold NaN or +inf, which means broken weights.
    """
    logits = logits[:vocab_size].float()
    if settings.greedy:
        best, index = logits.max(dim=-1)
        _check_finite(float(best))
        return int(index)
    candidates = _nucleus(logits, settings) if settings.top_k is None else _likeliest(logits, settings.top_k)
    if candidates is not None and settings.top_k is None:
        settings = dataclasses.replace(settings, top_p=1.0)
    kept = logits if candidates is None else logits[candidates]
    _check_finite(float(kept.max()))
    cumulated = _shape(kept, settings).double().softmax(dim=-1).cumsum(dim=-1).cpu()
    point = torch.rand((), generator=generator, dtype=torch.float64) * cumulated[-1]
    chosen = torch.searchsorted(cumulated, point, right=True).clamp_max(len(cumulated) - 1)
    return int(chosen if candidates is None else candidates[chosen])


FEW = 1024
"""Tokens that nearly always hold a nucleus: finding them costs a fifth of sorting a large vocabulary."""


def _likeliest(logits: Tensor, k: int) -> Tensor | None:
    """Ids that top-k leaves, ascending, ties with the k-th included; None: all. Over them the other filters are cheap."""
    if k >= len(logits):
        return None
    threshold = logits.topk(k).values[-1]
    if not bool(torch.isfinite(threshold)):
        return None
    return (logits >= threshold).nonzero().flatten()


def _nucleus(logits: Tensor, settings: SamplingSettings) -> Tensor | None:
    """Ids that top-p leaves, ascending, where they are few; None: not known."""
    if settings.top_p >= 1 or len(logits) <= FEW:
        return None
    likeliest, ids = ((logits - logits.max()) / settings.temperature).softmax(dim=-1).topk(FEW)
    before = likeliest.double().cumsum(dim=-1) - likeliest
    if not float(before[-1]) >= settings.top_p:
        return None
    return ids[before < settings.top_p].sort().values


def _check_finite(largest: float) -> None:
    if not math.isfinite(largest):
        raise FangcunError(
            "The model's logits are not finite, so no token can be chosen: its weights hold NaN or infinity, or float16 overflows. Use an earlier checkpoint, or dtype float32."
        )


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
    logits = logits.float()
    if seen_ids is not None:
        logits = penalize_repetition(logits, seen_ids, settings.repetition_penalty)
    rows = [
        draw(row, settings, vocab_size=vocab_size, generator=generator) for row in logits.view(-1, logits.shape[-1])
    ]
    return torch.tensor(rows, device=logits.device).view(logits.shape[:-1])
