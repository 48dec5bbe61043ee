"""Muon (Jordan et al. 2024): momentum whose matrices are made orthogonal, here for all matrices of a shape at once.

The rule is that of `torch.optim.Muon`, which walks the parameters one by one. Small models have dozens of equal small
matrices, for which that loop is mostly overhead; stacked, the same products are a few batched ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, overload

import torch
from torch import Tensor

from fangcun.model.device import cpu_computes_bf16
from fangcun.training.tensors import is_sharded, local

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic Newton–Schulz iteration (Jordan et al. 2024): steepest at zero, singular values end in 0.7 … 1.2."""
_SMALLEST_NORM = 1e-7
_ALONE_ROWS = 96
"""On a CPU, float32 matrices with this many rows are iterated one by one: MKL multiplies batches of that size at half the speed."""

Scale = Literal["match_rms_adamw", "original"]


def orthogonalize(matrices: Tensor, *, steps: int = 5) -> Tensor:
    """The nearest (half-)orthogonal matrix, roughly, of each of `matrices` (n, rows, columns), in the type they have.

    Wide matrices are iterated through their small Gram matrix where float32 allows it: with columns = 3 rows that takes
    two thirds of the work. In bf16 its rounding would grow, so there the iteration runs on the matrices themselves.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=_SMALLEST_NORM)
    rows, columns = x.shape[-2:]
    iterate = _iterate_gram if x.dtype == torch.float32 and columns >= 2 * rows else _iterate
    if x.device.type == "cpu" and x.dtype == torch.float32 and rows >= _ALONE_ROWS:
        x = torch.stack([iterate(one, steps) for one in x])
    else:
        x = iterate(x, steps)
    return x.mT if tall else x


def _add_product(start: Tensor, a: Tensor, b: Tensor, *, beta: float, alpha: float = 1.0) -> Tensor:
    """beta start + alpha a b, of matrices or of stacks of them."""
    return (torch.addmm if start.ndim == 2 else torch.baddbmm)(start, a, b, beta=beta, alpha=alpha)


def _iterate(x: Tensor, steps: int) -> Tensor:
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        gram = x @ x.mT
        x = _add_product(x, _add_product(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _iterate_gram(x: Tensor, steps: int) -> Tensor:
    """The same polynomial: x becomes p x with p a polynomial of the Gram matrix, and all of these commute."""
    a, b, c = COEFFICIENTS
    gram, product = x @ x.mT, None
    for step in range(steps):
        factor = _add_product(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        product = factor if product is None else factor @ product
        if step + 1 < steps:
            gram = factor @ gram @ factor
    return x if product is None else product @ x


def working_type(device: torch.device) -> torch.dtype:
    """bf16 where the device multiplies it natively, as torch.optim.Muon does everywhere; else float32.

    Emulated bf16 on a CPU without its instructions is several times slower than float32.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if device.type == "cpu":
        return torch.bfloat16 if cpu_computes_bf16() else torch.float32
    return torch.float32


def rate_factor(scale: Scale, rows: int, columns: int) -> float:
    """What the learning rate of a matrix is multiplied by, in torch's two ways.

    match_rms_adamw: entries move as far as AdamW's would (Liu et al. 2025). original: Jordan's, sqrt(rows / columns) for tall ones.
    """
    if scale == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1.0, rows / columns))


class Muon(torch.optim.Optimizer):
    """Muon over 2-D parameters; a group's `part_rows` cuts each of its matrices into several of so many rows, moved apart.

    Equal to `torch.optim.Muon` over the parts as parameters of their own, but for rounding. Parameters may be sharded
    (DTensor): momentum stays sharded, the update is gathered whole, for only a whole matrix can be made orthogonal.

    Args:
        params: groups of 2-D parameters.
        lr: learning rate; multiplied by `rate_factor`.
        weight_decay: decoupled, by the plain learning rate.
        momentum: of the running mean of gradients, Nesterov's form.
        scale: see `rate_factor`.
        steps: Newton–Schulz iterations.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        scale: Scale = "match_rms_adamw",
        steps: int = 5,
    ) -> None:
        defaults = {
            "lr": lr, "weight_decay": weight_decay, "momentum": momentum, "scale": scale, "steps": steps, "part_rows": None,
        }  # fmt: skip
        super().__init__(params, defaults)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim != 2 or parameter.shape[0] % (group["part_rows"] or 1):
                    raise ValueError(
                        f"Muon takes matrices whose rows are a multiple of part_rows, got {tuple(parameter.shape)} and {group['part_rows']}"
                    )

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Move every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # Matrices that are equal but for being transposed go through the same products.
        alike: dict[tuple, list[tuple[Any, Tensor, dict[str, Any]]]] = {}
        for group in self.param_groups:
            for parameter, update in self._momentum(group):
                rows, columns = group["part_rows"] or parameter.shape[0], parameter.shape[1]
                parts = update.reshape(-1, rows, columns)
                wide = parts if rows <= columns else parts.mT
                key = (*wide.shape[1:], group["steps"], update.device, update.dtype)
                alike.setdefault(key, []).append((parameter, wide, group))
        for (_, _, steps, device, _), members in alike.items():
            stack = torch.cat([wide for _, wide, _ in members]).to(working_type(device))
            directions = orthogonalize(stack, steps=steps).split([len(wide) for _, wide, _ in members])
            for (parameter, _, group), direction in zip(members, directions, strict=True):
                _move(parameter, direction, group)
        return loss

    def _momentum(self, group: dict[str, Any]) -> list[tuple[Any, Tensor]]:
        """Advance the running means and decay; the parameters with their updates, gathered whole, not yet orthogonal."""
        moved: list[Any] = [parameter for parameter in group["params"] if parameter.grad is not None]
        if not moved:
            return []
        for parameter in moved:
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        gradients = [local(parameter.grad) for parameter in moved]
        buffers = [local(self.state[parameter]["momentum_buffer"]) for parameter in moved]
        torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
        updates = torch._foreach_lerp(gradients, buffers, group["momentum"])
        torch._foreach_mul_([local(parameter) for parameter in moved], 1 - group["lr"] * group["weight_decay"])
        return [(parameter, _whole(update, parameter)) for parameter, update in zip(moved, updates, strict=True)]


def _move(parameter: Any, direction: Tensor, group: dict[str, Any]) -> None:
    """Add `direction` (n, rows, columns), or each matrix of it transposed, to `parameter`."""
    rows, columns = group["part_rows"] or parameter.shape[0], parameter.shape[1]
    if direction.shape[1] != rows:
        direction = direction.mT
    alpha = -group["lr"] * rate_factor(group["scale"], rows, columns)
    if not is_sharded(parameter):
        parameter.view(-1, rows, columns).add_(direction, alpha=alpha)
        return
    from torch.distributed.tensor import distribute_tensor

    # Every rank holds the same matrix, so each cuts out its own part and nothing is sent.
    whole = direction.reshape(parameter.shape)
    part = distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None)
    parameter.to_local().add_(part.to_local(), alpha=alpha)


def _whole(update: Tensor, parameter: Any) -> Tensor:
    if not is_sharded(parameter):
        return update
    from torch.distributed.tensor import DTensor

    sharded = DTensor.from_local(
        update, parameter.device_mesh, parameter.placements, shape=parameter.shape, stride=parameter.stride()
    )
    return sharded.full_tensor()
