"""Dropout (Srivastava et al. 2014), with cheaper random numbers on the CPU.

Torch draws a number for each entry there, on one core: a fifth of a training step with dropout went into it. Here one
draw of 64 bits decides about four entries.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

LEVELS = 1 << 16
"""A share is rounded to this many levels; what is kept grows by the rounded one, so that the expectation stays exact."""


def drop(x: Tensor, share: float, training: bool) -> Tensor:
    """Zero a random `share` of the entries and divide the others by 1 - share; at share 0 nothing is computed at all."""
    if not training or not share:
        return x
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, share)
    return x * keep_mask(x, share)


def keep_mask(like: Tensor, share: float) -> Tensor:
    """What `drop` multiplies by on a CPU: 0 with probability `share`, else 1 / (1 - share), of the shape and type of `like`.

    Drawn from torch's default generator.
    """
    dropped = min(round(share * LEVELS), LEVELS - 1)
    words = torch.empty(-(-like.numel() // 4), dtype=torch.int64)
    words.random_(-(2**63), None)  # all 64 bits; the default leaves the sign out
    numbers = words.view(torch.int16)[: like.numel()].view(like.shape)
    mask = torch.empty(like.shape, dtype=like.dtype)
    torch.ge(numbers, dropped - LEVELS // 2, out=mask)
    return mask.mul_(LEVELS / (LEVELS - dropped))
