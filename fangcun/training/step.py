"""One optimizer step: forward and backward over micro-batches, clip, guard, update."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from fangcun.model import cross_entropy_sum
from fangcun.training.optimizers import set_learning_rate
from fangcun.training.precision import Compute


@dataclass
class StepResult:
    """What one optimizer step did."""

    loss_sum: Tensor
    """Cross entropy summed over the step's targets, in nats; 0-d, on the device."""
    n_targets: int
    """Target tokens of the step."""
    grad_norm: Tensor
    """Global gradient norm before clipping; 0-d."""


def seed_of(*parts: object) -> int:
    """A 63-bit seed from anything printable. The same parts give the same seed on every machine."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def train_step(
    forward: Callable[[Tensor], Tensor],
    parameters: list[torch.nn.Parameter],
    optimizers: Iterable[torch.optim.Optimizer],
    inputs: Tensor,
    targets: Tensor,
    *,
    rate: float,
    micro_batch_size: int,
    max_norm: float | None,
    compute: Compute,
    dropout_seed: int | None = None,
    scaler: torch.amp.GradScaler | None = None,
) -> StepResult:
    """Train on one global batch: `inputs` and `targets` are (global_batch_size, T), masked targets are -100.

    The loss is the sum of cross entropy over all targets of the step divided by their number, so that the split into
    micro-batches changes nothing but the rounding. `dropout_seed` seeds each micro-batch's dropout by its place in the
    step, which makes the noise a function of the data position and needs no saved random state.
    """
    n_targets = int((targets != -100).sum())
    loss_sum = torch.zeros((), device=compute.device)
    for start in range(0, len(inputs), micro_batch_size):
        if dropout_seed is not None:
            torch.manual_seed(seed_of(dropout_seed, start // micro_batch_size))
        x = inputs[start : start + micro_batch_size].to(compute.device, non_blocking=True)
        y = targets[start : start + micro_batch_size].to(compute.device, non_blocking=True)
        with compute.autocast():
            # No name for the logits: the largest tensor of a small model must not live through the backward pass.
            micro_sum, _ = cross_entropy_sum(forward(x), y)
        loss = micro_sum / max(1, n_targets)
        (scaler.scale(loss) if scaler else loss).backward()
        loss_sum += micro_sum.detach()
    optimizers = list(optimizers)
    if scaler:
        for optimizer in optimizers:
            scaler.unscale_(optimizer)
    grad_norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm if max_norm is not None else float("inf"))
    set_learning_rate(optimizers, rate)
    for optimizer in optimizers:
        if scaler:
            scaler.step(optimizer)
        else:
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    if scaler:
        scaler.update()
    return StepResult(loss_sum, n_targets, grad_norm)
