"""When a run ends, in optimizer steps: the earliest of max_steps, max_tokens and epochs. Wall time is watched apart."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from fangcun.config.schema import TrainConfig
from fangcun.tokens import WindowOrder


@dataclass(frozen=True)
class Horizon:
    """Length of the run and of its schedule, in optimizer steps."""

    last_step: int | None
    """Steps after which the run ends; None when only wall time ends it."""
    warmup_steps: int
    decay_steps: int | None
    warnings: tuple[str, ...] = ()


def plan_horizon(config: TrainConfig, samples_in: Callable[[float], int], *, tokens_per_step: int) -> Horizon:
    """Steps of the run from its stop conditions. A warm-up longer than the run is shortened, with a warning.

    `samples_in` tells how many samples so many epochs have.
    """
    limits = []
    if config.max_steps is not None:
        limits.append(config.max_steps)
    if config.max_tokens is not None:
        limits.append(math.ceil(config.max_tokens / tokens_per_step))
    if config.epochs is not None:
        limits.append(max(1, math.ceil(samples_in(config.epochs) / config.global_batch_size)))
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


def samples_of_stream(order: WindowOrder) -> Callable[[float], int]:
    """Windows in the first so many passes over a stream; the count of a pass varies by one with its grid."""

    def samples_in(epochs: float) -> int:
        whole = int(epochs)
        if whole > 10_000:  # as good as endless: a count that is right on average will do
            return math.ceil(epochs * ((order.n_tokens - 1) / order.block_size + 1))
        count = sum(order.samples_in_epoch(e) for e in range(whole))
        return count + math.ceil((epochs - whole) * order.samples_in_epoch(whole))

    return samples_in
