"""A model laid out for reading and writing on a CPU: the matrices in the order in which oneDNN's kernels walk over them.

One token at a time is bound by how fast the weights come from memory. Torch's plain product of one row reads them at a
sixth to a half of what the machine gives, oneDNN's over packed weights at nearly all of it. int8: a scale for each row of
the matrix, and one for each row of the input as it comes (as in LLM.int8(), Dettmers et al. 2022, without its outliers).
int4: a scale and a smallest value for 32 weights of a row; the input in bf16. On a GPU torchao does both. A packed model has no parameters to train or save, only what it needs to run.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fangcun.errors import FangcunError
from fangcun.model.device import cpu_computes_bf16
from fangcun.model.norm import LayerNorm, RMSNorm
from fangcun.model.transformer import MLP, Transformer

Packing = Literal["float", "int8", "int4"]

Layer = Callable[[Tensor, Tensor | None], nn.Module]
"""(weight, bias) -> what computes x W^T + b."""

FEW_ROWS = 8
"""Rows that the layout is chosen for: those of a small batch of sequences that write."""


TWICE_BYTES = 256 << 20
"""Up to this size of a bf16 model all its matrices are packed twice; of a larger one the head alone."""

SLOW_ROWS = 4
"""Fewer rows than these take oneDNN's float32 product longer (8.9 ms for one, 6.3 for four at 65,024 x 512, one core)."""


class PackedLinear(nn.Module):
    """x W^T + b in W's type; the result has x's type."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.dtype = weight.dtype
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), FEW_ROWS)
        self.bias = None if bias is None else bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        if self.dtype != torch.float32:
            return self._product(x.to(self.dtype)).to(x.dtype)
        rows = x.reshape(-1, x.shape[-1])
        count = len(rows)
        if count < SLOW_ROWS:
            rows = torch.cat((rows, rows[:1].expand(SLOW_ROWS - count, -1)))
        return self._product(rows)[:count].view(*x.shape[:-1], -1)

    def _product(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")


class Bf16Linear(nn.Module):
    """x W^T + b of bf16 weights, packed twice: for a few rows FBGEMM's product reads them a third faster than oneDNN's.

    Its weights are float16, in which a bf16 number from 2^-17 to 65504 is exact, and smaller ones are off by 2^-25 at most;
    its input stays float32.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.many = PackedLinear(weight, bias)
        self.few = torch.ops.quantized.linear_prepack_fp16(
            weight.detach().float(), None if bias is None else bias.detach().float()
        )

    @classmethod
    def fits(cls, weight: Tensor) -> bool:
        """Whether there are such products here, and the weights are numbers that float16 has."""
        if weight.dtype != torch.bfloat16 or not bool(weight.abs().max() < 65504):
            return False
        return _works(cls, torch.bfloat16, 0.01, rows=1)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        if x.numel() > SLOW_ROWS * x.shape[-1]:
            return self.many(x)
        out = torch.ops.quantized.linear_dynamic_fp16(x.reshape(-1, x.shape[-1]).float(), self.few)
        return out.view(*x.shape[:-1], -1).to(x.dtype)


class Int8Linear(nn.Module):
    """x W^T + b with both in 8 bits: whole numbers times a scale for each row, products summed exactly (FBGEMM)."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        whole, scale = quantize_rows(weight.detach().float())
        zeros = torch.zeros(len(whole), dtype=torch.int64)
        with warnings.catch_warnings():  # torch means to drop these tensors; then there is OneDnnInt8Linear
            warnings.simplefilter("ignore")
            tensor = torch._make_per_channel_quantized_tensor(whole, scale.flatten().double(), zeros, 0)
        self.packed = torch.ops.quantized.linear_prepack(tensor, None if bias is None else bias.detach().float())
        self.narrow = not _sums_without_overflow()
        range_row = torch.zeros(1, weight.shape[1])
        range_row[0, 0], range_row[0, -1] = 1, -1
        self.range_row = range_row
        self.bias = bias is not None

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out). A row's result depends on no other row."""
        rows = x.reshape(-1, x.shape[-1]).float()
        if len(rows) == 1:
            out = torch.ops.quantized.linear_dynamic(rows, self.packed, self.narrow)
        else:
            # The kernel takes one scale for all rows. With each row brought to 1, and a row that spans -1 to 1 beside them,
            # that scale is always the same.
            scale = rows.abs().amax(-1, keepdim=True).clamp_min_(1e-12)
            level = torch.cat((rows / scale, self.range_row))
            out = torch.ops.quantized.linear_dynamic(level, self.packed, self.narrow)
            if self.bias:
                offset = torch.ops.quantized.linear_dynamic(self.range_row * 0, self.packed, self.narrow)
                out = (out - offset)[:-1] * scale + offset
            else:
                out = out[:-1] * scale
        return out.view(*x.shape[:-1], -1).to(x.dtype)


def _sums_without_overflow() -> bool:
    """Whether this CPU adds 8-bit products in 32 bits (VNNI); without, the input is kept to 7 bits."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return any(bool(capabilities.get(name)) for name in ("avx512_vnni", "avx_vnni", "avxvnni"))


class OneDnnInt8Linear(nn.Module):
    """`Int8Linear` through oneDNN, a third slower, for a torch or a CPU without FBGEMM."""

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


class QuickRMSNorm(nn.Module):
    """RMSNorm in four operations: x w sqrt(K) / hypot(|x|, sqrt(K eps)). Torch's own takes eight without gradients."""

    def __init__(self, norm: RMSNorm) -> None:
        super().__init__()
        size = norm.weight.numel()
        self.weight = norm.weight.detach().float() * math.sqrt(size)
        self.floor = torch.tensor(math.sqrt(size * norm.eps))

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) float32 -> (..., size)."""
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return torch.mul(x, self.weight).div_(torch.hypot(length, self.floor))


class PackedSwiGLU(nn.Module):
    """The MLP with gate and up as one matrix."""

    def __init__(self, gate: nn.Linear, up: nn.Linear, down: nn.Linear, layer: Layer) -> None:
        super().__init__()
        bias = None if gate.bias is None or up.bias is None else torch.cat((gate.bias, up.bias))
        self.wide = layer(torch.cat((gate.weight, up.weight)), bias)
        self.down = layer(down.weight, down.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, n_embd) -> (B, T, n_embd)."""
        gate, up = self.wide(x).chunk(2, dim=-1)
        return self.down(F.silu(gate).mul_(up))


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """(N, K) -> int8 of the same shape and float32 scales (N, 1) with x ~ int8 * scale; the largest of a row is 127."""
    scale = (x.abs().amax(-1, keepdim=True) / 127).clamp_min_(1e-12)
    return (x / scale).round_().to(torch.int8), scale


@lru_cache(maxsize=8)
def packs(dtype: torch.dtype, packing: Packing = "float") -> bool:
    """Whether this torch and CPU have the kernels and they compute what the plain product does."""
    if dtype not in (torch.float32, torch.bfloat16) or (dtype == torch.bfloat16 and not cpu_computes_bf16()):
        return False
    allowed = {"float": 1e-4 if dtype == torch.float32 else 0.05, "int8": 0.05, "int4": 0.3}[packing]
    return _works(_layer(packing), dtype, allowed)


def _works(layer: Layer, dtype: torch.dtype, allowed: float, rows: int = 3) -> bool:
    """Whether a small product comes out right, to a share of its largest entry."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(48, 64, generator=generator).to(dtype)
    x = torch.randn(rows, 64, generator=generator)
    try:
        got = layer(weight, None)(x)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    wanted = F.linear(x, weight.float())
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
        size_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
        if packing == "float" and all(Bf16Linear.fits(p) for p in model.parameters() if p.ndim == 2):
            model.packed_head = Bf16Linear(model.head_weight, None)
            layer = Bf16Linear if size_bytes <= TWICE_BYTES else layer
        else:
            model.packed_head = layer(model.head_weight, None)
        for module in list(model.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, MLP) and child.gate is not None:
                    setattr(module, name, PackedSwiGLU(child.gate, child.up, child.down, layer))
                elif isinstance(child, nn.Linear) and module is not model:
                    setattr(module, name, layer(child.weight, child.bias))
                elif isinstance(child, RMSNorm):
                    setattr(module, name, QuickRMSNorm(child))
                elif isinstance(child, LayerNorm):
                    child.float()
        if packing != "float":
            model.embedding.bfloat16()
    model.stream_dtype = torch.float32
    return model


def _layer(packing: Packing) -> Layer:
    if packing == "float":
        return PackedLinear
    eight = Int8Linear if _works(Int8Linear, torch.float32, 0.05) else OneDnnInt8Linear
    if packing == "int8":
        return eight
    return lambda weight, bias: (Int4Linear if Int4Linear.fits(weight) else eight)(weight, bias)


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
