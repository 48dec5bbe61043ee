"""Cross entropy as a sum, so that any way of cutting a batch gives the same loss; with or without the head before it.

`head_loss_sum` is output head and cross entropy in one: it walks the positions in chunks, finds the gradients of a
chunk while its logits are at hand, and forgets them. The logits of all positions never exist, which for a vocabulary
of 65,024 is two thirds of the memory of a step. Forward pass and gradients are those of `plain_head_loss_sum`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

LOGITS_BYTES = {"cpu": 64 << 20, "cuda": 512 << 20}
"""Bytes of logits that exist at once, by device type. CPU: measured (docs/benchmarks.md): above it nothing is gained,
below it the products become small and the weight's gradient is read too often. CUDA: chosen, not measured."""

CACHED_ENTRIES = 1 << 20
"""Float32 entries that stay in a CPU's cache over a few passes: 4 MiB."""

PLAIN_UP_TO_ROWS = 1024
"""Vocabularies this small take the plain way while their logits fit the budget: there is nothing to save, and the plain
way has fewer calls (768 positions x 65 on two cores: 0.55 ms against 1.05 ms; 1,024 x 4,400: 109 ms against 69 ms)."""


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


def cap_logits(logits: Tensor, softcap: float | None) -> Tensor:
    """softcap * tanh(logits / softcap), or the logits as they are."""
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


def plain_head_loss_sum(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, softcap: float | None = None, ignore_index: int = -100
) -> Tensor:
    """What `head_loss_sum` computes, written out: all logits at once. The reference of its tests."""
    logits = cap_logits(F.linear(hidden, weight), softcap)
    wide = torch.promote_types(logits.dtype, torch.float32)
    rows, flat = logits.reshape(-1, logits.shape[-1]).to(wide), targets.reshape(-1)
    return F.cross_entropy(rows, flat, ignore_index=ignore_index, reduction="sum")


def head_loss_sum(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    softcap: float | None = None,
    ignore_index: int = -100,
    rows_at_once: int | None = None,
) -> Tensor:
    """Cross entropy in nats of `hidden @ weight.T` against `targets`, summed: a float32 scalar (float64 for float64).

    Args:
        hidden: (..., D), any floating type. Under autocast the products run in its type, the softmax in float32.
        weight: (V, D).
        targets: (...) ids below V; positions equal to `ignore_index` are no targets and cost nothing.
        softcap: logits become softcap * tanh(logits / softcap).
        ignore_index: the id that masks a position.
        rows_at_once: positions whose logits exist at once. None: as many as `LOGITS_BYTES` has room for.

    The gradients are made in the forward pass, where gradients are wanted at all; `backward` only scales them, and can
    be called once.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    flat, ids = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    # A GPU converts a chunk as a whole, so there a float32 copy of it exists too.
    rows = rows_at_once or rows_in_budget(weight.shape[0], device, dtype.itemsize if device == "cpu" else 4)
    if rows_at_once is None and weight.shape[0] <= PLAIN_UP_TO_ROWS and len(ids) <= rows:
        return plain_head_loss_sum(flat, weight, ids, softcap=softcap, ignore_index=ignore_index)
    with torch.autocast(device, enabled=False):
        wanted = torch.is_grad_enabled()
        by_hidden, by_weight = wanted and hidden.requires_grad, wanted and weight.requires_grad
        settings = (softcap, ignore_index, dtype, rows, by_hidden, by_weight)
        if torch.compiler.is_compiling():  # one node of the graph: what it does inside is not the compiler's business
            return _head_loss(flat, weight, ids, *settings)[0]
        if by_hidden or by_weight:
            return _HeadLoss.apply(flat, weight, ids, *settings)
        return _walk(flat, weight, ids, *settings)[0]


def rows_in_budget(vocabulary: int, device: str, entry_bytes: int = 4) -> int:
    """Positions whose logits fit into the device's budget, in whole vectors of the matrix product."""
    rows = LOGITS_BYTES.get(device, LOGITS_BYTES["cpu"]) // (entry_bytes * vocabulary)
    return max(16, rows // 16 * 16)


class _HeadLoss(torch.autograd.Function):
    """Keeps the gradients that the forward pass found, and hands them out once."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, *settings: Any) -> Tensor:
        total, *ctx.gradients = _walk(hidden, weight, targets, *settings)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyrefly: ignore [bad-override]
        # Given away, not kept: autograd then takes the tensor as .grad instead of copying it.
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError("head_loss_sum: its gradients were used up by an earlier backward(). Compute it again.")
        for_hidden, for_weight = gradients
        del gradients
        for gradient in (for_hidden, for_weight):
            if gradient is not None:
                gradient.mul_(grad_outputs[0])
        return for_hidden, for_weight, *[None] * 7


@torch.library.custom_op("fangcun::head_loss", mutates_args=())
def _head_loss(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    softcap: float | None,
    ignore_index: int,
    dtype: torch.dtype,
    rows: int,
    by_hidden: bool,
    by_weight: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """`_walk` for compiled graphs, where every output is a tensor: an empty one for a gradient nobody wants."""
    found = _walk(hidden, weight, targets, softcap, ignore_index, dtype, rows, by_hidden, by_weight)
    total, for_hidden, for_weight = (hidden.new_empty(0) if part is None else part for part in found)
    return total, for_hidden, for_weight


@_head_loss.register_fake
def _(hidden: Tensor, weight: Tensor, targets: Tensor, *settings: Any) -> tuple[Tensor, Tensor, Tensor]:
    _, _, dtype, _, by_hidden, by_weight = settings
    total = hidden.new_empty((), dtype=torch.promote_types(dtype, torch.float32))
    for_hidden = torch.empty_like(hidden) if by_hidden else hidden.new_empty(0)
    return total, for_hidden, torch.empty_like(weight) if by_weight else hidden.new_empty(0)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*output[1:])


def _scale(ctx: Any, upstream: Tensor, *_: Any) -> Any:
    gradients = [part * upstream if part.numel() else None for part in ctx.saved_tensors]
    return *gradients, *[None] * 7


_head_loss.register_autograd(_scale, setup_context=_keep)


@torch.no_grad()
def _walk(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    softcap: float | None,
    ignore_index: int,
    dtype: torch.dtype,
    rows: int,
    by_hidden: bool,
    by_weight: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """(sum of cross entropy, its gradient by hidden (N, D) or None, by weight (V, D) or None); products in `dtype`."""
    wide = torch.promote_types(dtype, torch.float32)
    vocabulary = weight.shape[0]
    kept = (targets != ignore_index).nonzero().squeeze(1)
    every = len(kept) == len(targets)
    x, y = (hidden, targets) if every else (hidden[kept], targets[kept])
    x, w = x.to(dtype), weight.to(dtype)
    rows = min(rows, max(1, len(x)))
    loss = torch.zeros(len(x), dtype=wide, device=x.device)
    by_x = torch.empty_like(x) if by_hidden else None
    # Summed over the chunks, hence in float32 even where the products are not.
    by_w = torch.empty(weight.shape, dtype=wide, device=x.device) if by_weight else None
    if by_w is not None and not len(x):
        by_w.zero_()
    logits = torch.empty(rows, vocabulary, dtype=dtype, device=x.device)
    for start in range(0, len(x), rows):
        part, target = x[start : start + rows], y[start : start + rows]
        chunk = torch.mm(part, w.t(), out=logits[: len(part)])
        loss[start : start + rows] = _to_slopes(chunk, target, softcap, wide)
        if by_x is not None:
            torch.mm(chunk, w, out=by_x[start : start + rows])
        if by_w is not None and by_w.dtype == dtype:
            torch.addmm(by_w, chunk.t(), part, beta=float(start > 0), out=by_w)
        elif by_w is not None:
            _add_product(by_w, chunk, part, first=start == 0)
    if by_x is not None:
        by_x = by_x.to(hidden.dtype)
        by_x = by_x if every else torch.zeros_like(hidden).index_copy_(0, kept, by_x)
    return loss.sum(), by_x, None if by_w is None else by_w.to(weight.dtype)


def _to_slopes(logits: Tensor, targets: Tensor, softcap: float | None, wide: torch.dtype) -> Tensor:
    """The cross entropy of each row in `wide`; `logits` become its gradient, softmax less one at the target, in place.

    On a CPU some rows at a time, which stay in the cache from the first pass over them to the last.
    """
    losses = torch.empty(len(logits), dtype=wide, device=logits.device)
    rows = max(1, CACHED_ENTRIES // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
    narrow = logits.dtype != wide
    buffer = torch.empty(min(rows, len(logits)), logits.shape[1], dtype=wide, device=logits.device) if narrow else None
    for start in range(0, len(logits), rows):
        own, target = logits[start : start + rows], targets[start : start + rows]
        x = own if buffer is None else buffer[: len(own)].copy_(own)
        bend = None
        if softcap is not None:
            bend = x.div_(softcap).tanh_().clone()
            x.mul_(softcap)
        at = torch.arange(len(x), device=x.device)
        top, wanted = x.amax(-1), x[at, target]
        torch.softmax(x, -1, out=x)
        # The logarithm of the largest probability, which cannot underflow, gives that of the sum.
        losses[start : start + rows] = top - x.amax(-1).log() - wanted
        x[at, target] -= 1
        if bend is not None:
            x.mul_(bend.square_().neg_().add_(1))
        if narrow:
            own.copy_(x)
    return losses


def _add_product(total: Tensor, slopes: Tensor, part: Tensor, *, first: bool) -> None:
    """total (+)= slopes.t() @ part, in place, where the product has a narrower type; on a CPU in pieces that stay in the cache."""
    rows = max(1, CACHED_ENTRIES // total.shape[1]) if total.device.type == "cpu" else len(total)
    for start in range(0, len(total), rows):
        product = slopes[:, start : start + rows].t() @ part
        piece = total[start : start + rows]
        piece.copy_(product) if first else piece.add_(product)
