"""When a run ends, in optimizer steps: the earliest of max_steps, max_tokens and epochs. Wall time is watched apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fangcun.config.schema import TrainConfig
from fangcun.tokens import Batches


@dataclass(frozen=True)
class Horizon:
    """Length of the run and of its schedule, in optimizer steps."""

    last_step: int | None
    """Steps after which the run ends; None when only wall time ends it."""
    warmup_steps: int
    decay_steps: int | None
    warnings: tuple[str, ...] = ()


def plan_horizon(config: TrainConfig, batches: Batches, *, tokens_per_step: int) -> Horizon:
    """Steps of the run from its stop conditions. A warm-up longer than the run is shortened, with a warning."""
    limits = []
    if config.max_steps is not None:
        limits.append(config.max_steps)
    if config.max_tokens is not None:
        limits.append(math.ceil(config.max_tokens / tokens_per_step))
    if config.epochs is not None:
        limits.append(max(1, math.ceil(_samples_in(batches, config.epochs) / config.global_batch_size)))
    last = min(limits) if limits else None
    decay = None
    if config.lr_schedule != "constant":
        decay = config.lr_decay_steps or last
    warmup, warnings = config.lr_warmup_steps, []
    bound = min(x for x in (last, decay, math.inf) if x is not None)
    if warmup >= bound:
        warmup = int(bound) // 10
        warnings.append(
            f"train.lr_warmup_steps: {config.lr_warmup_steps} is not shorter than the run ({int(bound)} steps); "
            f"shortened to {warmup}."
        )
    return Horizon(last, warmup, decay, tuple(warnings))


def _samples_in(batches: Batches, epochs: float) -> int:
    """Windows in the first `epochs` passes; the count of a pass varies by one with its grid."""
    whole = int(epochs)
    if whole > 10_000:  # as good as endless: a count that is right on average will do
        return math.ceil(epochs * (batches.tokens_in_epoch / batches.order.block_size + 1))
    count = sum(batches.order.samples_in_epoch(e) for e in range(whole))
    return count + math.ceil((epochs - whole) * batches.order.samples_in_epoch(whole))
