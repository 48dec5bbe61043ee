"""Causal self-attention with grouped queries (Ainslie et al. 2023) and rotary positions (Su et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fangcun.config import ModelConfig
from fangcun.config.families import output_bias, qkv_bias
from fangcun.model.attention_cpu import attention_pays, causal_attention, one_query
from fangcun.model.cache import KVCache
from fangcun.model.document_mask import Documents
from fangcun.model.kernels_cpu import rotation
from fangcun.model.norm import RMSNorm

Turn = tuple[Tensor, Tensor]
"""Cosines and signed sines of the positions of one forward pass, each (T, 1, rotated size), float32; with a batch
dimension in front where its windows have positions of their own."""


class Rotary(nn.Module):
    """Tables of the rotary embedding in the half-split pairing that Hugging Face uses: dimension i turns with i + D/2.

    The first half of the sines carries its minus sign, so that a rotation is `x * cos + roll(x, D/2) * sin`. The tables
    stay float32 whatever the model is cast to, are no part of the state dict, and grow past `block_size` when asked.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, size: int, base: float, length: int) -> None:
        super().__init__()
        self.size, self.base = size, base
        self.register_buffer("cos", torch.empty(0), persistent=False)
        self.register_buffer("sin", torch.empty(0), persistent=False)
        self.build(length, torch.get_default_device())

    def build(self, length: int, device: torch.device | str) -> None:
        """Fill tables of `length` positions. Computed on CPU, so that they are the same on every device."""
        if torch.device(device).type == "meta":
            self.cos = self.sin = torch.empty(length, 1, self.size, device="meta")
            return
        with torch.device("cpu"):
            frequencies = 1.0 / self.base ** (torch.arange(0, self.size, 2, dtype=torch.int64).float() / self.size)
            angles = torch.outer(torch.arange(length).float(), frequencies)
            cos, sin = angles.cos(), angles.sin()
            self.cos = torch.cat((cos, cos), dim=-1)[:, None].to(device)
            self.sin = torch.cat((-sin, sin), dim=-1)[:, None].to(device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # .to(bfloat16) must not round the tables, and .to_empty() must not leave them unfilled.
        length = self.cos.shape[0]
        super()._apply(fn, recurse)
        self.build(length, self.cos.device)
        return self

    def forward(self, start: int, count: int) -> Turn:
        """The tables of positions `start` to `start + count`."""
        if start + count > self.cos.shape[0]:
            self.build(2 * (start + count), self.cos.device)
        return self.cos[start : start + count], self.sin[start : start + count]

    def at(self, positions: Tensor) -> Turn:
        """The tables of positions (B, T), all of them below T or the length the tables were built for."""
        if positions.shape[1] > self.cos.shape[0]:
            self.build(2 * positions.shape[1], self.cos.device)
        return self.cos[positions], self.sin[positions]


def rotate(x: Tensor, turn: Turn) -> Tensor:
    """Turn the first dimensions of heads (B, T, heads, D) by their positions, in float32."""
    cos, sin = turn
    size = cos.shape[-1]
    if size < x.shape[-1]:
        return torch.cat((rotate(x[..., :size], turn), x[..., size:].float()), dim=-1)
    return rotation(x, cos, sin)


class Attention(nn.Module):
    """softmax(q k^T / sqrt(D)) v over the positions up to each one.

    One matrix makes queries, keys and values; its rows are all query heads, then all key heads, then all value heads.
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        assert config.n_query_groups is not None and config.head_size is not None, "resolve_model comes first"
        self.layer = layer
        self.heads, self.groups, self.head_size = config.n_head, config.n_query_groups, config.head_size
        rows = (self.heads + 2 * self.groups) * self.head_size
        self.qkv = nn.Linear(config.n_embd, rows, bias=qkv_bias(config))
        self.output = nn.Linear(self.heads * self.head_size, config.n_embd, bias=output_bias(config))
        self.query_norm = RMSNorm(self.head_size, config.norm_eps) if config.qk_norm else None
        self.key_norm = RMSNorm(self.head_size, config.norm_eps) if config.qk_norm else None
        self.dropout = config.attention_dropout

    def project(self, x: Tensor, turn: Turn | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, n_embd) -> queries (B, H, T, D), keys and values (B, G, T, D), normed and turned as they are used."""
        B, T, _ = x.shape
        H, G, D = self.heads, self.groups, self.head_size
        qkv = self.qkv(x).view(B, T, H + 2 * G, D)
        # split, not slices: its gradient is one concatenation.
        if self.query_norm is not None and self.key_norm is not None:
            query, key, value = qkv.split((H, G, G), dim=2)
            # Norm and rotation stay in float32 between the two matrix products, whatever these compute in.
            query, key = self.query_norm(query.float()), self.key_norm(key.float())
            if turn is not None:
                query, key = rotate(query, turn), rotate(key, turn)
        elif turn is not None:
            both, value = qkv.split((H + G, G), dim=2)
            query, key = rotate(both, turn).split((H, G), dim=2)
        else:
            query, key, value = qkv.split((H, G, G), dim=2)
        query, key, value = (part.to(value.dtype).transpose(1, 2) for part in (query, key, value))
        return query, key, value

    def forward(
        self,
        x: Tensor,
        turn: Turn | None = None,
        cache: KVCache | None = None,
        documents: Documents | None = None,
    ) -> Tensor:
        """(B, T, n_embd) -> (B, T, n_embd). With a cache, x continues the positions that the cache holds.

        With documents, no position sees another document; a cache has no part in that.
        """
        B, T, _ = x.shape
        H, G, D = self.heads, self.groups, self.head_size
        query, key, value = self.project(x, turn)
        dropout = self.dropout if self.training else 0.0
        past, mask = 0, None
        if cache is not None:
            past, mask = cache.length, cache.mask(T, x.device)
            key, value = cache.append(self.layer, key, value)
        if documents is not None:
            mixed = documents.attend(query, key, value, dropout)
        elif T == 1 and query.is_cpu and query.dtype == torch.float32 and torch.is_inference_mode_enabled():
            mixed = one_query(query, key, value, mask)
        elif not past and attention_pays(query):
            mixed = causal_attention(query, key, value, dropout=dropout)
        else:
            # is_causal aligns a rectangle at its first row; where its last is wanted, the cache has a mask.
            mixed = F.scaled_dot_product_attention(
                query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=mask is None and T > 1, enable_gqa=G < H
            )
        return self.output(mixed.transpose(1, 2).reshape(B, T, H * D))
