"""ModelConfig: the shape of a model, in the names that litgpt and nanoGPT made common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fangcun.config.constraints import NonNegativeFloat, OpenShare, PositiveFloat, PositiveInt, Share

Family = Literal["gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3"]


@dataclass
class ModelConfig:
    """A decoder-only Transformer. Fields left at null are filled in by `resolve` from the others."""

    family: Family = "qwen3"
    """The Hugging Face architecture that a checkpoint is written as."""

    exportable: bool = True
    """False allows a shape that no family can express; its checkpoints open only here."""

    block_size: PositiveInt = 512
    """Longest context, in tokens."""

    vocab_size: PositiveInt | None = None
    """Ids the tokenizer can give. Null: taken from the tokenizer."""

    padded_vocab_size: PositiveInt | None = None
    """Rows of the embedding and columns of the logits. Null: vocab_size rounded up to padding_multiple."""

    padding_multiple: PositiveInt = 64
    """The embedding's rows are rounded up to a multiple of this, for speed."""

    n_layer: PositiveInt = 6
    """Transformer blocks."""

    n_head: PositiveInt = 6
    """Query heads."""

    n_query_groups: PositiveInt | None = None
    """Key/value heads; n_head must be a multiple of it. Null: n_head (no grouping)."""

    n_embd: PositiveInt = 384
    """Width of the residual stream."""

    head_size: PositiveInt | None = None
    """Width of one head. Null: n_embd / n_head."""

    intermediate_size: PositiveInt | None = None
    """Hidden width of the MLP. Null: 4 x n_embd for GELU and ReLU2; 8/3 x n_embd rounded up to 64 for SwiGLU."""

    norm_class: Literal["RMSNorm", "LayerNorm"] = "RMSNorm"
    """Normalisation before attention, MLP and head."""

    norm_eps: PositiveFloat = 1e-6
    """Added to the variance inside the norms."""

    mlp_class: Literal["SwiGLU", "GELU", "ReLU2"] = "SwiGLU"
    """The feed-forward block."""

    gelu_approximate: Literal["tanh", "none"] = "tanh"
    """GELU's form. tanh: GPT-2's own. none: the exact one, as in nanoGPT and litgpt; on a CPU it takes half of the time."""

    positions: Literal["rope", "learned"] = "rope"
    """How positions enter: rotary embeddings, or a learned table as in GPT-2."""

    rope_base: PositiveFloat = 10000.0
    """Base of the rotary frequencies (theta)."""

    rotary_percentage: Share = 1.0
    """Share of each head that is rotated."""

    qk_norm: bool = True
    """RMSNorm on queries and keys, per head, before the rotation (Qwen3)."""

    bias: bool = False
    """Biases everywhere, as in GPT-2: norms (LayerNorm only), query/key/value, attention output and MLP."""

    attention_bias: bool = False
    """Biases in the query, key and value projections (Qwen2); for llama and qwen3, as in their config.json, in the attention output too."""

    parallel_residual: bool = False
    """Attention and MLP read the same input, each through its own norm (GPT-NeoX)."""

    scale_embeddings: bool = False
    """Multiply embeddings by sqrt(n_embd)."""

    tie_embeddings: bool = True
    """The head shares the embedding's matrix."""

    ngram_rows: PositiveInt | None = None
    """Rows of a table of embeddings for the last ids together, found by a hash and added to the token's own. Null: none."""

    ngram_length: PositiveInt = 2
    """Longest run of ids in that table. 2: pairs. 3: pairs and triples."""

    dropout: OpenShare = 0.0
    """Dropout on embeddings and on the outputs of attention and MLP."""

    attention_dropout: OpenShare = 0.0
    """Dropout on attention probabilities."""

    logit_softcap: NonNegativeFloat | None = None
    """Cap logits at this value by tanh. Null: no cap."""
