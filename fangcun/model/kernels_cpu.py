"""Norm, rotation, GELU and embedding for training on a CPU: the same numbers with fewer passes over memory.

Torch builds these from small operations there, and each of them reads and writes the whole tensor. The functions
here do their own backward pass and fall back to the plain form wherever they bring nothing: on other devices, in other
types, without gradients, and under torch.compile, which fuses by itself. `plain_…` are the references of the tests.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def pays(*tensors: Tensor, dtype: torch.dtype = torch.float32) -> bool:
    """Whether the functions of this file are worth taking for these tensors."""
    return (
        all(t.device.type == "cpu" and t.dtype == dtype for t in tensors)
        and torch.is_grad_enabled()
        and any(t.requires_grad for t in tensors)
        and not torch.compiler.is_compiling()
    )


# ---------------------------------------------------------------------- RMSNorm


def plain_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension."""
    return F.rms_norm(x, weight.shape, weight, eps)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`plain_rms_norm`; forward and backward together take a third of its time (4 against 11 ns an element, one core)."""
    return _RMSNorm.apply(x, weight, eps) if pays(x, weight) else plain_rms_norm(x, weight, eps)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return torch.mul(x, scale).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyrefly: ignore[bad-override]
        x, weight, scale = ctx.saved_tensors
        size = x.shape[-1]
        # LayerNorm's fused kernel, told that the mean is 0. What it takes off for a mean that depends on x is put back.
        for_x, for_weight, _ = torch.ops.aten.native_layer_norm_backward(
            grad_outputs[0].contiguous(), x.contiguous(), [size], torch.zeros_like(scale), scale, weight, None,
            [True, ctx.needs_input_grad[1], False],
        )  # fmt: skip
        with torch.autocast("cpu", enabled=False):
            taken = torch.mv(grad_outputs[0].reshape(-1, size), weight).view_as(scale)
        return for_x.add_(taken.mul_(scale).div_(size)), for_weight, None


# ---------------------------------------------------------------------- rotary positions


def plain_rotation(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Pairs (i, i + D/2) of the last dimension turned; the first half of `sin` carries its minus sign."""
    return x * cos + x.roll(x.shape[-1] // 2, -1) * sin


def rotation(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`plain_rotation` in two passes instead of four, and its gradient, which is the rotation back, as well."""
    return _Rotation.apply(x, cos, sin) if pays(x) else plain_rotation(x, cos, sin)


class _Rotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyrefly: ignore[bad-override]
        cos, sin = ctx.saved_tensors
        return _turn(grad_outputs[0], cos, sin, -1), None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor, way: int) -> Tensor:
    half = x.shape[-1] // 2
    out = x * cos
    out[..., :half].addcmul_(x[..., half:], sin[..., :half], value=way)
    out[..., half:].addcmul_(x[..., :half], sin[..., half:], value=way)
    return out


# ---------------------------------------------------------------------- GELU


AT_ONCE = 1 << 18
"""Entries that the passes of `gelu` go over together: 1 MiB of float32, which stays in the cache."""

_LINEAR = 2 * math.sqrt(2 / math.pi)
_CUBIC = 0.044715 * _LINEAR


def plain_gelu(x: Tensor) -> Tensor:
    """GELU (Hendrycks & Gimpel 2016) in GPT-2's form, with a tanh."""
    return F.gelu(x, approximate="tanh")


def gelu(x: Tensor) -> Tensor:
    """`plain_gelu`, as x * sigmoid(a x + b x^3), which it is; for bf16, where it takes two thirds of torch's time.

    The slope is made in the forward pass, where the sigmoid is at hand, and kept instead of x, rounded like any gradient.
    In float32 nothing is won.
    """
    return _Gelu.apply(x) if pays(x, dtype=torch.bfloat16) else plain_gelu(x)


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y, slope = torch.empty_like(x, memory_format=torch.contiguous_format), torch.empty(x.shape, dtype=x.dtype)
        parts = zip(*(t.reshape(-1).split(AT_ONCE) for t in (x, y, slope)), strict=True)
        buffers = torch.empty(3, min(AT_ONCE, x.numel()))
        for own, own_y, own_slope in parts:
            wide = own.float()
            gate, bend, product = (buffer[: len(own)] for buffer in buffers)
            torch.mul(wide, wide, out=bend)
            torch.mul(bend, _CUBIC, out=gate).add_(_LINEAR).mul_(wide).sigmoid_()
            torch.mul(wide, gate, out=product)
            own_y.copy_(product)
            # gate + product * (1 - gate) * (a + 3 b x^2)
            bend.mul_(3 * _CUBIC).add_(_LINEAR).mul_(product)
            bend.addcmul_(bend, gate, value=-1).add_(gate)
            own_slope.copy_(bend)
        ctx.save_for_backward(slope)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyrefly: ignore[bad-override]
        (slope,) = ctx.saved_tensors
        return grad_outputs[0] * slope


# ---------------------------------------------------------------------- embedding


LARGE = 1 << 20
"""Entries from which on a second tensor of the embedding's size costs more than sparse bookkeeping."""


def embed(ids: Tensor, weight: Tensor, tied: bool) -> Tensor:
    """Rows `ids` of `weight`. The gradient of a large `tied` embedding is sparse, for the head's dense one is to take it in.

    A dense one would be a second tensor of the weight's size, 127 MiB at 65,024 x 512, filled with zeros and added up.
    """
    return _Embed.apply(ids, weight, tied and weight.numel() >= LARGE) if pays(weight) else F.embedding(ids, weight)


def give_gradient_last(weight: Tensor) -> Tensor:
    """`weight`, for the head of a tied model: asked for before `embed`, its gradient is added after that of `embed`.

    Autograd adds a dense gradient to a sparse one in place, but a sparse one to a dense one by a copy.
    """
    return _Last.apply(weight) if pays(weight) else weight


class _Embed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: Tensor, sparse: bool) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.shape, ctx.sparse = weight.shape, sparse
        return F.embedding(ids, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyrefly: ignore[bad-override]
        (ids,) = ctx.saved_tensors
        gradient = grad_outputs[0].reshape(-1, ctx.shape[1])
        if ctx.sparse:
            return None, torch.sparse_coo_tensor(ids.reshape(1, -1), gradient, ctx.shape, check_invariants=False), None
        # Torch's own walks all ids once for each part of the vocabulary.
        return None, gradient.new_zeros(ctx.shape).index_add_(0, ids.flatten(), gradient), None


class _Last(torch.autograd.Function):
    """Of two nodes that are ready autograd runs the younger first."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        return weight.view_as(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyrefly: ignore[bad-override]
        return grad_outputs[0]
