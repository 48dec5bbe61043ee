"""Which tensors a GGUF file of each family has, and from which Hugging Face tensors they come.

Names on the right are llama.cpp's (`gguf.constants.TENSOR_NAMES`). Facts of its loaders: the architecture "llama" rotates
neighbouring pairs where Hugging Face rotates halves, so query and key rows are reordered; Conv1D matrices of GPT-2 are
transposed; GPT-NeoX keeps query, key and value together head by head, llama.cpp one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from fangcun.config import ModelConfig
from fangcun.config.families import output_bias, qkv_bias
from fangcun.errors import ConfigError

ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gpt2": "gpt2",
    "gpt_neox": "gptneox",
}
"""Our family -> llama.cpp's architecture."""

Change = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Entry:
    """One tensor of the file."""

    name: str
    """llama.cpp's."""
    source: str
    """Hugging Face's."""
    change: Change | None = None
    is_vocabulary: bool = False
    """One row a token: cut to the tokenizer's ids."""


def plan(config: ModelConfig) -> list[Entry]:
    """All tensors of the file, in its order. Raises ConfigError for a shape that llama.cpp has no place for."""
    family = str(config.family)
    if family not in ARCHITECTURES:
        raise ConfigError(
            f"model.family {family}: GGUF is written for {', '.join(ARCHITECTURES)}. Export with --to hf."
        )
    if family == "qwen3" and (qkv_bias(config) or output_bias(config)):
        raise ConfigError(
            "model.attention_bias is true: llama.cpp's qwen3 has no biases in attention. Export with --to hf, or train "
            "without (family qwen2 has them in query, key and value)."
        )
    if family == "gpt2":
        return _gpt2(config)
    if family == "gpt_neox":
        return _gpt_neox(config)
    return _llama(config)


def _pairs(heads: int) -> Change:
    """Rows of each head from [first half, second half] to neighbouring pairs: what rotates together stands together."""

    def change(tensor: torch.Tensor) -> torch.Tensor:
        rest = tensor.shape[1:]
        return tensor.reshape(heads, 2, -1, *rest).transpose(1, 2).reshape(tensor.shape)

    return change


def _together(heads: int) -> Change:
    """Rows from [head, query/key/value] to [query/key/value, head]."""

    def change(tensor: torch.Tensor) -> torch.Tensor:
        rest = tensor.shape[1:]
        return tensor.reshape(heads, 3, -1, *rest).transpose(0, 1).reshape(tensor.shape)

    return change


def _transposed(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.T


def _llama(config: ModelConfig) -> list[Entry]:
    assert config.n_query_groups is not None
    reorder = ARCHITECTURES[config.family] == "llama"
    entries = [Entry("token_embd.weight", "model.embed_tokens.weight", is_vocabulary=True)]
    for layer in range(config.n_layer):
        ours, theirs = f"blk.{layer}", f"model.layers.{layer}"

        def add(name: str, source: str, bias: bool = False, change: Change | None = None, ours: str = ours,
                theirs: str = theirs) -> None:  # fmt: skip
            for part in ("weight", "bias")[: 1 + bias]:
                entries.append(Entry(f"{ours}.{name}.{part}", f"{theirs}.{source}.{part}", change))

        bias = qkv_bias(config)
        add("attn_norm", "input_layernorm")
        add("attn_q", "self_attn.q_proj", bias, _pairs(config.n_head) if reorder else None)
        add("attn_k", "self_attn.k_proj", bias, _pairs(config.n_query_groups) if reorder else None)
        add("attn_v", "self_attn.v_proj", bias)
        add("attn_output", "self_attn.o_proj", output_bias(config))
        if config.qk_norm:
            add("attn_q_norm", "self_attn.q_norm")
            add("attn_k_norm", "self_attn.k_norm")
        add("ffn_norm", "post_attention_layernorm")
        for name in ("gate", "up", "down"):
            add(f"ffn_{name}", f"mlp.{name}_proj", config.bias)
    entries.append(Entry("output_norm.weight", "model.norm.weight"))
    return entries + _head(config, "lm_head.weight")


def _gpt2(config: ModelConfig) -> list[Entry]:
    entries = [
        Entry("token_embd.weight", "transformer.wte.weight", is_vocabulary=True),
        Entry("position_embd.weight", "transformer.wpe.weight"),
    ]
    parts = {
        "attn_norm": ("ln_1", None),
        "attn_qkv": ("attn.c_attn", _transposed),
        "attn_output": ("attn.c_proj", _transposed),
        "ffn_norm": ("ln_2", None),
        "ffn_up": ("mlp.c_fc", _transposed),
        "ffn_down": ("mlp.c_proj", _transposed),
    }
    for layer in range(config.n_layer):
        for name, (source, change) in parts.items():
            entries.append(Entry(f"blk.{layer}.{name}.weight", f"transformer.h.{layer}.{source}.weight", change))
            entries.append(Entry(f"blk.{layer}.{name}.bias", f"transformer.h.{layer}.{source}.bias"))
    entries += [Entry(f"output_norm.{part}", f"transformer.ln_f.{part}") for part in ("weight", "bias")]
    return entries + _head(config, "lm_head.weight")


def _gpt_neox(config: ModelConfig) -> list[Entry]:
    entries = [Entry("token_embd.weight", "gpt_neox.embed_in.weight", is_vocabulary=True)]
    parts: dict[str, tuple[str, Change | None]] = {
        "attn_norm": ("input_layernorm", None),
        "attn_qkv": ("attention.query_key_value", _together(config.n_head)),
        "attn_output": ("attention.dense", None),
        "ffn_norm": ("post_attention_layernorm", None),
        "ffn_up": ("mlp.dense_h_to_4h", None),
        "ffn_down": ("mlp.dense_4h_to_h", None),
    }
    for layer in range(config.n_layer):
        for name, (source, change) in parts.items():
            for part in ("weight", "bias"):
                entries.append(Entry(f"blk.{layer}.{name}.{part}", f"gpt_neox.layers.{layer}.{source}.{part}", change))
    entries += [Entry(f"output_norm.{part}", f"gpt_neox.final_layer_norm.{part}") for part in ("weight", "bias")]
    if config.tie_embeddings:  # llama.cpp's gptneox has no tied head: the matrix is written twice
        return [*entries, Entry("output.weight", "gpt_neox.embed_in.weight", is_vocabulary=True)]
    return entries + _head(config, "embed_out.weight")


def _head(config: ModelConfig, source: str) -> list[Entry]:
    return [] if config.tie_embeddings else [Entry("output.weight", source, is_vocabulary=True)]
