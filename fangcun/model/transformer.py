"""The decoder-only Transformer, one for all families: token embedding, blocks on a residual stream, norm, head.

Pre-norm blocks as in GPT-2 (Radford et al. 2019); SwiGLU from Shazeer (2020), squared ReLU from So et al. (2021),
the parallel form from GPT-J / GPT-NeoX.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fangcun.config import ModelConfig
from fangcun.config.resolve import rotated_size
from fangcun.errors import FangcunError
from fangcun.model.attention import Attention, Rotary, Turn
from fangcun.model.cache import KVCache
from fangcun.model.document_mask import Documents
from fangcun.model.dropout import drop
from fangcun.model.kernels_cpu import embed, gelu
from fangcun.model.loss import cap_logits
from fangcun.model.ngrams import NgramEmbedding
from fangcun.model.norm import make_norm


class MLP(nn.Module):
    """Widen, bend, narrow; SwiGLU bends by a second projection, the gate."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.intermediate_size is not None, "resolve_model comes first"
        width, hidden = config.n_embd, config.intermediate_size
        self.kind = config.mlp_class
        self.exact = config.gelu_approximate == "none"
        self.gate = nn.Linear(width, hidden, bias=config.bias) if self.kind == "SwiGLU" else None
        self.up = nn.Linear(width, hidden, bias=config.bias)
        self.down = nn.Linear(hidden, width, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, n_embd) -> (B, T, n_embd)."""
        if self.gate is not None:
            return self.down(F.silu(self.gate(x)) * self.up(x))
        if self.kind == "GELU":
            wide = self.up(x)
            return self.down(F.gelu(wide) if self.exact else gelu(wide))
        return self.down(F.relu(self.up(x)).square())


class Block(nn.Module):
    """Attention and MLP, each reading the stream through its norm and adding to it."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm = make_norm(config)
        self.attention = Attention(config, layer)
        self.mlp_norm = make_norm(config)
        self.mlp = MLP(config)
        self.parallel = config.parallel_residual
        self.dropout = config.dropout

    def forward(
        self, x: Tensor, turn: Turn | None, cache: KVCache | None, documents: Documents | None = None
    ) -> Tensor:
        """(B, T, n_embd) -> (B, T, n_embd)."""
        attended = drop(self.attention(self.attention_norm(x), turn, cache, documents), self.dropout, self.training)
        if self.parallel:
            return x + attended + drop(self.mlp(self.mlp_norm(x)), self.dropout, self.training)
        x = x + attended
        return x + drop(self.mlp(self.mlp_norm(x)), self.dropout, self.training)


class Transformer(nn.Module):
    """Ids in, logits out. `config` must be resolved (`fangcun.config.resolve_model`).

    The parameters hold torch's own initial values; `fangcun.model.initialize` draws ours.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.padded_vocab_size is None or config.head_size is None:
            raise FangcunError("the model's config has nulls. Pass it through fangcun.config.resolve_model first.")
        self.config = config
        self.embedding = make_embedding(config.padded_vocab_size, config.n_embd)
        self.ngrams = NgramEmbedding(config) if config.ngram_rows is not None else None
        self.positions = make_embedding(config.block_size, config.n_embd) if config.positions == "learned" else None
        self.rotary = None
        if config.positions == "rope":
            size = rotated_size(config.head_size, config.rotary_percentage)
            self.rotary = Rotary(size, config.rope_base, config.block_size)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.norm = make_norm(config)
        tied = config.tie_embeddings
        self.head = None if tied else nn.Linear(config.n_embd, config.padded_vocab_size, bias=False)
        # Set by fangcun.model.packed, for use without training:
        self.packed_head: nn.Module | None = None
        self.stream_dtype: torch.dtype | None = None

    @property
    def head_weight(self) -> Tensor:
        """The matrix (padded_vocab_size, n_embd) that turns hidden states into logits: the embedding's where tied."""
        return self.embedding.weight if self.head is None else self.head.weight

    @property
    def cache_dtype(self) -> torch.dtype:
        """Of keys and values as they come: what a cache for this model should hold."""
        return self.stream_dtype or self.embedding.weight.dtype

    def hidden(self, ids: Tensor, cache: KVCache | None = None, documents: Documents | None = None) -> Tensor:
        """(B, T) int64 ids -> (B, T, n_embd) after the final norm.

        With a cache, ids continue at `cache.length`, which grows by T. With documents (`find_documents`) each of them is
        read as if it were alone. Raises FangcunError past the end of a learned position table, or of the cache.
        """
        assert cache is None or documents is None, "a cache continues one text"
        T = ids.shape[1]
        start = 0 if cache is None else cache.length
        if cache is not None:
            cache.reserve(T)
        x = embed(ids, self.embedding.weight, tied=self.head is None)
        if self.stream_dtype is not None:
            x = x.to(self.stream_dtype)
        if self.config.scale_embeddings:
            x = x * math.sqrt(self.config.n_embd)
        if self.ngrams is not None:
            x = x + self.ngrams(ids, None if cache is None else cache.remember(ids), documents)
        turn = None
        positions = documents.positions if documents is not None else None if cache is None else cache.positions
        if self.rotary is not None:
            turn = self.rotary(start, T) if positions is None else self.rotary.at(positions)
        elif self.positions is not None:
            if start + T > self.config.block_size:
                raise FangcunError(
                    f"{start + T} positions were asked of a model whose learned positions end at block_size "
                    f"({self.config.block_size}). Give it a shorter context."
                )
            table = self.positions.weight
            x = x + (table[start : start + T] if positions is None else F.embedding(positions, table))
        x = drop(x, self.config.dropout, self.training)
        for block in self.blocks:
            x = block(x, turn, cache, documents)
        if cache is not None:
            cache.advance(T)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., n_embd) from `hidden` -> (..., padded_vocab_size)."""
        raw = F.linear(hidden, self.head_weight) if self.packed_head is None else self.packed_head(hidden)
        return cap_logits(raw, self.config.logit_softcap)

    def forward(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """(B, T) int64 ids -> logits (B, T, padded_vocab_size). See `hidden` for the cache and the errors."""
        return self.logits(self.hidden(ids, cache))


def make_embedding(rows: int, width: int) -> nn.Embedding:
    """An embedding. On the meta device without torch's own draw, which there imports the compiler: 1.2 s for nothing."""
    if torch.get_default_device().type == "meta":
        return nn.Embedding(rows, width, _weight=torch.empty(rows, width))
    return nn.Embedding(rows, width)
