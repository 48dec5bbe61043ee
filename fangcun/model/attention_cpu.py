"""Causal attention for the CPU: a block of queries at a time, each a few batched matrix products.

Torch's fused kernel for CPUs (`scaled_dot_product_attention`) makes small products of its own, which for the small heads
of small models take two to five times as long as the library's batched ones. Here the scores of a block of queries
against all keys before its end fill a buffer that stays in the cache, as in FlashAttention (Dao et al. 2022); what lies
beyond the block is never computed. The forward pass may keep the probabilities for the backward pass, or leave it to
make them again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fangcun.model.device import cpu_computes_bf16
from fangcun.model.dropout import keep_mask

BLOCK_BYTES = 4 << 20
"""Bytes of one block's scores. Measured at 4 x 64 to 2 x 1,024 positions, float32 and bf16: 3 to 8 MiB are best."""

KEEP_BYTES = 12 << 20
"""Bytes of probabilities that a layer keeps; above, it makes them again, which takes a fifth longer."""


def attention_pays(query: Tensor) -> bool:
    """Whether `causal_attention` is worth taking for queries like these: on a CPU, in types that its products are fast in."""
    if query.device.type != "cpu" or query.shape[2] == 1 or torch.compiler.is_compiling():
        return False
    return query.dtype in (torch.float32, torch.float64) or (query.dtype == torch.bfloat16 and cpu_computes_bf16())


def causal_attention(
    query: Tensor, key: Tensor, value: Tensor, *, seen: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """softmax(q k^T / sqrt(D)) v over the positions up to each one.

    Args:
        query: (B, H, T, D).
        key, value: (B, G, T, D), where G divides H; head h reads group h // (H / G).
        seen: (B, 1, T, T) bool: which keys a query sees. None: all up to its own.
        dropout: share of the probabilities that is set to zero, the others growing by as much.

    Returns (B, H, T, D) in the memory order (B, T, H, D).
    """
    wanted = torch.is_grad_enabled() and any(t.requires_grad for t in (query, key, value))
    return _Attention.apply(query, key, value, seen, dropout, wanted)


def one_query(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of a single position a sequence, without gradients: two small batched products.

    query (B, H, 1, D), key and value (B, G, L, D), mask (B, 1, 1, L) bool or None -> (B, H, 1, D). For a sequence that
    writes torch's fused kernel takes three times as long.
    """
    B, H, _, D = query.shape
    G, L = key.shape[1], key.shape[2]
    queries = query.reshape(B * G, H // G, D)
    keys, values = key.reshape(B * G, L, D), value.reshape(B * G, L, D)
    scores = queries.new_empty(B * G, H // G, L)
    torch.baddbmm(scores, queries, keys.transpose(1, 2), beta=0, alpha=D**-0.5, out=scores)
    if mask is not None:
        scores.view(B, H, 1, L).masked_fill_(~mask, float("-inf"))
    return torch.bmm(torch.softmax(scores, -1), values).view(B, H, 1, D)


class _Blocks:
    """How one attention is cut: the queries of all heads that share a group lie below each other."""

    def __init__(self, query: Tensor, key: Tensor, seen: Tensor | None) -> None:
        self.B, H, self.T, self.D = query.shape
        self.G = key.shape[1]
        self.share = H // self.G
        self.seen = seen
        scores = self.B * H * self.T  # of one position
        rows = max(16, min(256, BLOCK_BYTES // (4 * scores)))
        rows = 1 << rows.bit_length() - 1
        self.blocks = [(start, min(start + rows, self.T)) for start in range(0, self.T, rows)]
        self.keep = query.element_size() * scores * (self.T + rows) // 2 <= KEEP_BYTES

    def stack(self, x: Tensor) -> Tensor:
        """(B, G, T, D) -> (B * G, T, D) contiguous."""
        return x.reshape(self.B * self.G, self.T, self.D)

    def rows(self, x: Tensor, start: int, end: int) -> Tensor:
        """Positions of (B, H, T, D) for all heads -> (B * G, share * positions, D)."""
        return x[:, :, start:end].reshape(self.B * self.G, self.share * (end - start), self.D)

    def place(self, rows: Tensor, into: Tensor, start: int, end: int) -> None:
        """The way back of `rows`."""
        into[:, :, start:end] = rows.view(self.B, self.G * self.share, end - start, self.D)

    def probabilities(self, queries: Tensor, keys: Tensor, start: int, end: int) -> Tensor:
        """(B * G, share * rows, D) and float32 keys (B * G, T, D) -> (B * G, share * rows, end), of the queries' type.

        The scores are float32 as well: a score of 40 is known to 1/4 in bf16, which would be wrong by a fifth after exp.
        """
        narrow, queries = queries.dtype, queries.to(keys.dtype)
        scores = queries.new_empty(*queries.shape[:2], end)
        # beta 0: what lies in `scores` is not read
        torch.baddbmm(scores, queries, keys[:, :end].transpose(1, 2), beta=0, alpha=self.D**-0.5, out=scores)
        by_head = scores.view(self.B, self.G * self.share, end - start, end)
        if self.seen is not None:
            by_head.masked_fill_(~self.seen[:, :, start:end, :end], float("-inf"))
        else:  # of the block's own keys, those behind each query
            rows = end - start
            by_head[..., start:] += scores.new_full((rows, rows), float("-inf")).triu(1)
        return torch.softmax(scores, -1, out=scores).to(narrow)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None, dropout: float, wanted: bool
    ) -> Tensor:
        cut = _Blocks(query, key, seen)
        keys, values = cut.stack(key), cut.stack(value)
        out = query.new_empty(cut.B, cut.T, query.shape[1], cut.D).transpose(1, 2)
        wide_keys = _wide(keys)
        kept: list[Tensor] = []
        masks: list[Tensor] = []
        for start, end in cut.blocks:
            p = cut.probabilities(cut.rows(query, start, end), wide_keys, start, end)
            if wanted and cut.keep:
                kept.append(p)
            if dropout:
                mask = keep_mask(p, dropout)
                p = p * mask
                masks.append(mask)
            cut.place(torch.bmm(p, values[:, :end]), out, start, end)
        if wanted:
            ctx.cut, ctx.shape, ctx.n_kept = cut, query.shape, len(kept)
            ctx.save_for_backward(query, keys, values, *kept, *masks)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyrefly: ignore[bad-override]
        query, keys, values, *saved = ctx.saved_tensors
        cut, kept, masks = ctx.cut, saved[: ctx.n_kept], saved[ctx.n_kept :]
        wide_keys = keys if kept else _wide(keys)
        for_query = query.new_empty(ctx.shape)
        for_key, for_value = torch.empty_like(keys), torch.empty_like(values)
        for number in reversed(range(len(cut.blocks))):  # the last block reaches all keys: it fills, the others add
            start, end = cut.blocks[number]
            q, g = cut.rows(query, start, end), cut.rows(grad_outputs[0], start, end)
            p = kept[number] if kept else cut.probabilities(q, wide_keys, start, end)
            by_p = torch.bmm(g, values[:, :end].transpose(1, 2))
            dropped = p
            if masks:
                by_p.mul_(masks[number])
                dropped = p * masks[number]
            by_scores = torch.ops.aten._softmax_backward_data(by_p, p, -1, p.dtype)
            first = float(end < cut.T)
            for total, left, right in ((for_value, dropped, g), (for_key, by_scores, q)):
                part = total[:, :end]
                torch.baddbmm(part, left.transpose(1, 2), right, beta=first, out=part)
            cut.place(torch.bmm(by_scores, keys[:, :end]), for_query, start, end)
        scale = cut.D**-0.5
        shape = (cut.B, cut.G, cut.T, cut.D)
        return for_query.mul_(scale), for_key.mul_(scale).view(shape), for_value.view(shape), None, None, None
