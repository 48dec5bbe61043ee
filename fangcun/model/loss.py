"""Cross entropy as a sum and a count, so that any way of cutting a batch gives the same loss."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def cross_entropy_sum(logits: Tensor, targets: Tensor, ignore_index: int = -100) -> tuple[Tensor, Tensor]:
    """Sum of cross entropy in nats (float32 scalar) and the number of targets (int64 scalar).

    Args:
        logits: (..., rows of the vocabulary), any floating type; the sum is taken in float32.
        targets: (...) ids; positions equal to `ignore_index` are no targets.
        ignore_index: the id that masks a position.
    """
    rows = logits.float().reshape(-1, logits.shape[-1])
    flat = targets.reshape(-1)
    return F.cross_entropy(rows, flat, ignore_index=ignore_index, reduction="sum"), (flat != ignore_index).sum()
