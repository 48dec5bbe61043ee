"""A model laid out for reading and writing on a CPU: the matrices in the order in which oneDNN's kernels walk over them.

One token at a time is bound by how fast the weights come from memory. Torch's plain product of one row reads them at a
sixth to a half of what the machine gives, oneDNN's over packed weights at nearly all of it. int8: a scale for each row of
the matrix, and one for each row of the input as it comes (as in LLM.int8(), Dettmers et al. 2022, without its outliers).
int4: a scale and a smallest value for 32 weights of a row; the input in bf16. On a GPU torchao does both. A packed model has no parameters to train or save, only what it needs to run.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fangcun.errors import FangcunError
from fangcun.model.device import cpu_computes_bf16
from fangcun.model.norm import LayerNorm, RMSNorm
from fangcun.model.transformer import Transformer

Packing = Literal["float", "int8", "int4"]

FEW_ROWS = 8
"""Rows that the layout is chosen for: those of a small batch of sequences that write."""


class PackedLinear(nn.Module):
    """x W^T + b in W's type; the result has x's type."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.dtype = weight.dtype
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), FEW_ROWS)
        self.bias = None if bias is None else bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        out = torch.ops.mkldnn._linear_pointwise(x.to(self.dtype), self.packed, self.bias, "none", [], "")
        return out.to(x.dtype)


class Int8Linear(nn.Module):
    """x W^T + b with both in 8 bits: whole numbers times a scale for each row, products summed exactly."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        whole, scale = quantize_rows(weight.detach().float())
        self.scale = scale.flatten()
        self.zero = torch.zeros(weight.shape[0], dtype=torch.int32)
        self.packed = torch.ops.onednn.qlinear_prepack(whole, [FEW_ROWS, weight.shape[1]])
        self.bias = None if bias is None else bias.detach().float()

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        whole, scale = quantize_rows(x.reshape(-1, x.shape[-1]).float())
        # The kernels take unsigned input; for a signed one oneDNN has only its reference, a thousand times as slow.
        whole = whole.view(torch.uint8) ^ 128
        out = torch.ops.onednn.qlinear_pointwise(
            whole, 1.0, 128, self.packed, self.scale, self.zero, None, 1.0, 0, torch.float32, "none", [], ""
        ).mul_(scale)
        if self.bias is not None:
            out += self.bias
        return out.view(*x.shape[:-1], -1).to(x.dtype)


class Int4Linear(nn.Module):
    """x W^T + b with W in 4 bits, groups of 32 along a row; (out, in) must be multiples of (16, 32): see `fits`."""

    GROUP = 32

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        rows, columns = weight.shape
        groups = weight.detach().float().view(rows, columns // self.GROUP, self.GROUP)
        least, most = groups.amin(-1), groups.amax(-1)
        scale = ((most - least) / 15).clamp_min_(1e-9)
        whole = ((groups - least[..., None]) / scale[..., None]).round_().clamp_(0, 15)
        self.packed = torch._convert_weight_to_int4pack_for_cpu(whole.view(rows, columns).to(torch.int32), 1)
        # The kernel's weight is (whole - 8) * scale + middle.
        self.scales = torch.stack((scale, least + 8 * scale), -1).transpose(0, 1).contiguous().bfloat16()
        self.bias = None if bias is None else bias.detach().float()

    @classmethod
    def fits(cls, weight: Tensor) -> bool:
        """Whether the kernel takes a matrix of this shape."""
        return weight.shape[0] % 16 == 0 and weight.shape[1] % cls.GROUP == 0

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        rows = x.reshape(-1, x.shape[-1]).bfloat16()
        out = torch._weight_int4pack_mm_for_cpu(rows, self.packed, self.GROUP, self.scales).to(x.dtype)
        if self.bias is not None:
            out += self.bias
        return out.view(*x.shape[:-1], -1)


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """(N, K) -> int8 of the same shape and float32 scales (N, 1) with x ~ int8 * scale; the largest of a row is 127."""
    scale = (x.abs().amax(-1, keepdim=True) / 127).clamp_min_(1e-12)
    return (x / scale).round_().to(torch.int8), scale


@lru_cache(maxsize=8)
def packs(dtype: torch.dtype, packing: Packing = "float") -> bool:
    """Whether this torch and CPU have the kernels and they compute what the plain product does."""
    if dtype not in (torch.float32, torch.bfloat16) or (dtype == torch.bfloat16 and not cpu_computes_bf16()):
        return False
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(48, 64, generator=generator).to(dtype)
    x = torch.randn(3, 64, generator=generator)
    try:
        got = _layer(packing)(weight, None)(x)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    wanted = F.linear(x, weight.float())
    allowed = {"float": 1e-4 if dtype == torch.float32 else 0.05, "int8": 0.05, "int4": 0.3}[packing]
    return bool((got - wanted).abs().max() <= allowed * wanted.abs().max())


def pack(model: Transformer, packing: Packing = "float") -> Transformer:
    """The model, with its matrices packed in place; norms, positions and what is between the products are float32.

    "float" keeps the weights as they are, and does nothing where the kernels are missing (see `packs`) or the model is on
    another device. int8 and int4 raise FangcunError there; on CUDA they are torchao's weight-only kinds.
    """
    weight = model.embedding.weight
    if weight.device.type != "cpu":
        return model if packing == "float" else _quantize_with_torchao(model, packing)
    if not packs(weight.dtype, packing):
        if packing == "float":
            return model
        raise FangcunError(
            f"dtype {packing} needs kernels that torch {torch.__version__} does not have on this CPU. Use bfloat16 or float32."
        )
    layer = _layer(packing)
    with torch.inference_mode(False), torch.no_grad():
        model.requires_grad_(False)
        model.packed_head = layer(model.head_weight, None)
        for module in list(model.blocks.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(module, name, layer(child.weight, child.bias))
        for module in model.modules():
            if isinstance(module, (RMSNorm, LayerNorm)):
                module.float()
        if packing != "float":
            model.embedding.bfloat16()
    model.stream_dtype = torch.float32
    return model


def _layer(packing: Packing) -> Callable[[Tensor, Tensor | None], nn.Module]:
    if packing == "int4":
        return lambda weight, bias: (Int4Linear if Int4Linear.fits(weight) else Int8Linear)(weight, bias)
    return Int8Linear if packing == "int8" else PackedLinear


def _quantize_with_torchao(model: Transformer, packing: Packing) -> Transformer:
    try:
        from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig, quantize_
    except ImportError as error:
        raise FangcunError(
            f"dtype {packing} on {model.embedding.weight.device} needs torchao: pip install 'fangcun[optim]', or use bfloat16."
        ) from error
    model.requires_grad_(False)
    if model.packed_head is None:  # a matrix of its own: the embedding stays as it is
        head = nn.Linear(*reversed(model.head_weight.shape), bias=False, device="meta")
        head.weight = nn.Parameter(model.head_weight.detach().clone(), requires_grad=False)
        model.packed_head = head
    try:
        quantize_(model, Int8WeightOnlyConfig() if packing == "int8" else Int4WeightOnlyConfig())
    except (RuntimeError, ImportError, AssertionError, NotImplementedError, ValueError) as error:
        raise FangcunError(
            f"dtype {packing}: torchao cannot quantize for {model.embedding.weight.device}: {error}. Use bfloat16."
        ) from error
    return model
