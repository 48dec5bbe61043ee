"""One optimizer step: forward and backward over micro-batches, norm, guard, clip, update."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from fangcun.training.optimizers import set_learning_rate
from fangcun.training.parallel import Parallel
from fangcun.training.precision import Compute


@dataclass(frozen=True)
class StepResult:
    """What one optimizer step did."""

    loss_sum: float
    """Cross entropy summed over the step's targets, of all ranks, in nats."""
    n_targets: int
    """Target tokens of the step, of all ranks."""
    grad_norm: float
    """Global gradient norm before clipping."""
    applied: bool
    """Whether the weights moved."""
    stop: bool
    """Whether a rank was asked to stop."""


def seed_of(*parts: object) -> int:
    """A 63-bit seed from anything printable. The same parts give the same seed on every machine."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def always(loss: float, grad_norm: float) -> bool:
    """A guard that lets every step through."""
    return True


def train_step(
    parallel: Parallel,
    parameters: list[torch.nn.Parameter],
    optimizers: Iterable[torch.optim.Optimizer],
    inputs: Tensor,
    targets: Tensor,
    *,
    rate: float,
    micro_batch_size: int,
    max_norm: float | None,
    compute: Compute,
    n_targets: int | None = None,
    dropout_seed: int | None = None,
    scaler: torch.amp.GradScaler | None = None,
    approve: Callable[[float, float], bool] = always,
    stop: bool = False,
) -> StepResult:
    """Train on this rank's part of one global batch: `inputs` and `targets` are (samples, T), masked targets are -100.

    The loss is the sum of cross entropy over all targets of the step, of all ranks, divided by their number
    (`n_targets`; None: those given here), so that the split into micro-batches and ranks changes nothing but the rounding.
    `dropout_seed` seeds each micro-batch's dropout by its place in the global batch: the noise is a function of the data
    position and needs no saved random state. `approve(loss, grad_norm)` is asked before the weights move; when it says no
    they stay as they are. `stop` is this rank's wish to end, which the ranks exchange here.
    """
    if n_targets is None:
        n_targets = int((targets != -100).sum())
    ranks = parallel.ranks
    scale = parallel.gradient_scale / max(1, n_targets)
    # Loss and wish to stop share the one exchange between ranks.
    told = torch.zeros(2, dtype=torch.float64 if compute.device.type != "mps" else torch.float32, device=compute.device)
    told[1] = stop
    count = -(-len(inputs) // micro_batch_size)
    for number, start in enumerate(range(0, len(inputs), micro_batch_size)):
        if dropout_seed is not None:
            torch.manual_seed(seed_of(dropout_seed, ranks.rank * count + number))
        x = inputs[start : start + micro_batch_size].to(compute.device, non_blocking=True)
        y = targets[start : start + micro_batch_size].to(compute.device, non_blocking=True)
        with parallel.micro_batch(last=number == count - 1):
            with compute.autocast():
                micro_sum = parallel.objective(x, y)
            loss = micro_sum * scale
            (scaler.scale(loss) if scaler else loss).backward()
            parallel.collect()
        told[0] += micro_sum.detach()
    optimizers = list(optimizers)
    if scaler:
        for optimizer in optimizers:
            scaler.unscale_(optimizer)
    norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
    if parallel.sharded:
        norm = norm.full_tensor()  # type: ignore[attr-defined]
    ranks.sum(told)
    # One transfer to the CPU, and the only wait for a GPU in a step.
    loss_sum, stops, grad_norm = torch.cat((told, norm.reshape(1).to(told.dtype))).tolist()
    applied = approve(loss_sum / max(1, n_targets), grad_norm)
    if applied:
        if max_norm is not None:
            clip_grads_with_norm_(parameters, max_norm, norm)
        set_learning_rate(optimizers, rate)
        for optimizer in optimizers:
            if scaler:
                scaler.step(optimizer)
            else:
                optimizer.step()
        parallel.refresh()
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    if scaler:
        scaler.update()
    return StepResult(loss_sum, n_targets, grad_norm, applied, stops > 0)
