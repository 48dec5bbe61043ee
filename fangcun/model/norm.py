"""RMSNorm (Zhang & Sennrich 2019) and LayerNorm, computed in float32 whatever comes in."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fangcun.config import ModelConfig
from fangcun.model.kernels_cpu import rms_norm


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight, over the last dimension; the result has x's type."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) -> (..., size)."""
        return rms_norm(x.float(), self.weight.float(), self.eps).to(x.dtype)


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(variance + eps) * weight (+ bias), over the last dimension; the result has x's type."""

    def __init__(self, size: int, eps: float, bias: bool) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) -> (..., size)."""
        bias = None if self.bias is None else self.bias.float()
        return F.layer_norm(x.float(), self.weight.shape, self.weight.float(), bias, self.eps).to(x.dtype)


def make_norm(config: ModelConfig) -> nn.Module:
    """The norm of the residual stream that `config` names."""
    if config.norm_class == "LayerNorm":
        return LayerNorm(config.n_embd, config.norm_eps, config.bias)
    return RMSNorm(config.n_embd, config.norm_eps)
