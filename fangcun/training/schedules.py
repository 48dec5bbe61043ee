"""Learning rate per optimizer step: linear warm-up, then cosine, constant, or stable with a fall at the end (wsd)."""

from __future__ import annotations

import math


def learning_rate(
    step: int,
    *,
    schedule: str,
    peak: float,
    minimum: float,
    warmup_steps: int,
    decay_steps: int | None,
    decay_share: float = 0.2,
    decay_shape: str = "linear",
) -> float:
    """The rate of optimizer step `step` (the first is 0).

    Warm-up rises linearly and reaches `peak` at step `warmup_steps`. `cosine` falls to `minimum` at `decay_steps` and
    stays there (Loshchilov & Hutter 2016); `constant` stays at `peak`. `wsd` (Hu et al. 2024) stays at `peak` and falls
    over the last `decay_share` of `decay_steps`: linearly, or by 1 - sqrt of the way (Hägele et al. 2024).
    """
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    if schedule == "constant":
        return peak
    if decay_steps is None:
        raise ValueError(f"{schedule} needs decay_steps")
    if step >= decay_steps:
        return minimum
    begin = warmup_steps
    if schedule == "wsd":
        begin = max(begin, decay_steps - decay_share * decay_steps)
    progress = max(0.0, (step - begin) / max(1.0, decay_steps - begin))
    if schedule == "cosine":
        left = 0.5 * (1 + math.cos(math.pi * progress))
    else:
        left = 1 - (math.sqrt(progress) if decay_shape == "sqrt" else progress)
    return minimum + (peak - minimum) * left
