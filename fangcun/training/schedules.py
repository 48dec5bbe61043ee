"""Learning rate per optimizer step: linear warm-up, then cosine or constant."""

from __future__ import annotations

import math


def learning_rate(
    step: int, *, schedule: str, peak: float, minimum: float, warmup_steps: int, decay_steps: int | None
) -> float:
    """The rate of optimizer step `step` (the first is 0).

    Warm-up rises linearly and reaches `peak` at step `warmup_steps`. `cosine` falls to `minimum` at `decay_steps` and
    stays there (Loshchilov & Hutter 2016); `constant` stays at `peak`.
    """
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    if schedule == "constant":
        return peak
    if decay_steps is None:
        raise ValueError("cosine needs decay_steps")
    if step >= decay_steps:
        return minimum
    progress = (step - warmup_steps) / max(1, decay_steps - warmup_steps)
    return minimum + (peak - minimum) * 0.5 * (1 + math.cos(math.pi * progress))
