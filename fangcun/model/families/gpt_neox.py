"""GPT-NeoX (Black et al. 2022; Pythia, Biderman et al. 2023): LayerNorm, GELU, rotary positions on a part of each head.

Hugging Face keeps query, key and value of each head together, and biases everywhere (in attention, where `attention_bias`
says so). A model without biases is written with zero biases; our own config inside `config.json` says that they are none.
"""

from __future__ import annotations

from typing import Any

import torch

from fangcun.config import ModelConfig
from fangcun.errors import ConfigError
from fangcun.model.families.names import State, refuse_rest, take

_LINEARS = {"attention.dense": "attention.output", "mlp.dense_h_to_4h": "mlp.up", "mlp.dense_4h_to_h": "mlp.down"}
_NORMS = {"input_layernorm": "attention_norm", "post_attention_layernorm": "mlp_norm"}
_QKV = "attention.query_key_value"
_TANH = ("gelu_new", "gelu_fast", "gelu_pytorch_tanh")
_DEFAULT_SHARE = 0.25


def to_hf_fields(config: ModelConfig) -> dict[str, Any]:
    """The shape in the words of `GPTNeoXConfig`; both spellings of the rotary settings, for old and new readers."""
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "vocab_size": config.padded_vocab_size,
        "hidden_size": config.n_embd,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "max_position_embeddings": config.block_size,
        "hidden_act": "gelu_new" if config.gelu_approximate == "tanh" else "gelu",
        "layer_norm_eps": config.norm_eps,
        "rotary_emb_base": config.rope_base,
        "rotary_pct": config.rotary_percentage,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": config.rope_base,
            "partial_rotary_factor": config.rotary_percentage,
        },
        "use_parallel_residual": config.parallel_residual,
        "attention_bias": True,
        "hidden_dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "tie_word_embeddings": config.tie_embeddings,
    }


def from_hf_fields(raw: dict[str, Any]) -> ModelConfig:
    """The ModelConfig of a GPT-NeoX `config.json`. Raises ConfigError naming what we do not have."""
    for field in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
        if raw.get(field) is None:
            raise ConfigError(f"config.json: {field} is missing, needed to read a gpt_neox model.")
    activation = raw.get("hidden_act", "gelu")
    if activation not in ("gelu", *_TANH):
        raise ConfigError(
            f"config.json: hidden_act is {activation!r}, Fangcun knows gpt_neox with 'gelu' and the tanh forms {', '.join(_TANH)} only."
        )
    base, share = _rotation(raw)
    heads = int(raw["num_attention_heads"])
    return ModelConfig(
        family="gpt_neox",
        block_size=int(raw.get("max_position_embeddings", 2048)),
        vocab_size=int(raw["vocab_size"]),
        padded_vocab_size=int(raw["vocab_size"]),
        n_layer=int(raw["num_hidden_layers"]),
        n_head=heads,
        n_query_groups=heads,
        n_embd=int(raw["hidden_size"]),
        intermediate_size=int(raw["intermediate_size"]),
        norm_class="LayerNorm",
        norm_eps=float(raw.get("layer_norm_eps", 1e-5)),
        mlp_class="GELU",
        gelu_approximate="tanh" if activation in _TANH else "none",
        positions="rope",
        rope_base=base,
        rotary_percentage=share,
        qk_norm=False,
        bias=True,
        parallel_residual=bool(raw.get("use_parallel_residual", True)),
        tie_embeddings=bool(raw.get("tie_word_embeddings", False)),
        dropout=float(raw.get("hidden_dropout") or 0.0),
        attention_dropout=float(raw.get("attention_dropout") or 0.0),
    )


def to_hf_state(config: ModelConfig, state: State) -> State:
    """Our tensors under GPT-NeoX's names, query, key and value interleaved head by head, absent biases as zeros."""
    hf = {"gpt_neox.embed_in.weight": state["embedding.weight"]}

    def add(theirs: str, ours: str) -> None:
        weight = hf[f"{theirs}.weight"] = state[f"{ours}.weight"]
        bias = state.get(f"{ours}.bias")
        hf[f"{theirs}.bias"] = weight.new_zeros(weight.shape[0]) if bias is None else bias

    for layer in range(config.n_layer):
        theirs, ours = f"gpt_neox.layers.{layer}", f"blocks.{layer}"
        for name, own in (_NORMS | _LINEARS | {_QKV: "attention.qkv"}).items():
            add(f"{theirs}.{name}", f"{ours}.{own}")
        for part in ("weight", "bias"):
            hf[f"{theirs}.{_QKV}.{part}"] = _swap(hf[f"{theirs}.{_QKV}.{part}"], 3, config.n_head)
    add("gpt_neox.final_layer_norm", "norm")
    if not config.tie_embeddings:
        hf["embed_out.weight"] = state["head.weight"]
    return hf


def from_hf_state(config: ModelConfig, hf: State) -> State:
    """GPT-NeoX's tensors under our names, all biases included; consumes `hf`. Buffers of old files are dropped.

    Attention without biases (`attention_bias: false`) gets biases of 0, which are the same to the last bit. See
    `drop_absent_biases` of `gpt2` for models that have none at all.
    """
    state = {"embedding.weight": take(hf, "gpt_neox.embed_in.weight")}
    for layer in range(config.n_layer):
        theirs, ours = f"gpt_neox.layers.{layer}", f"blocks.{layer}"
        for name in ("bias", "masked_bias", "rotary_emb.inv_freq"):
            hf.pop(f"{theirs}.attention.{name}", None)
        if f"{theirs}.{_QKV}.bias" not in hf and f"{theirs}.attention.dense.bias" not in hf:
            for name in (_QKV, "attention.dense"):
                weight = hf.get(f"{theirs}.{name}.weight")
                if weight is not None:
                    hf[f"{theirs}.{name}.bias"] = weight.new_zeros(weight.shape[0])
        for name, own in (_NORMS | _LINEARS).items():
            for part in ("weight", "bias"):
                state[f"{ours}.{own}.{part}"] = take(hf, f"{theirs}.{name}.{part}")
        for part in ("weight", "bias"):
            found = take(hf, f"{theirs}.{_QKV}.{part}")
            if found.shape[0] % (3 * config.n_head):
                raise ConfigError(
                    f"{theirs}.{_QKV}.{part} has {found.shape[0]} rows, expected a multiple of 3 x num_attention_heads ({config.n_head})."
                )
            state[f"{ours}.attention.qkv.{part}"] = _swap(found, config.n_head, 3)
    for part in ("weight", "bias"):
        state[f"norm.{part}"] = take(hf, f"gpt_neox.final_layer_norm.{part}")
    if not config.tie_embeddings:
        # transformers 5 calls it lm_head in memory.
        state["head.weight"] = take(hf, "lm_head.weight" if "lm_head.weight" in hf else "embed_out.weight")
    refuse_rest(hf)
    return state


def _swap(tensor: torch.Tensor, outer: int, inner: int) -> torch.Tensor:
    """Rows that lie as [outer, inner, head size] as [inner, outer, head size]."""
    rest = tensor.shape[1:]
    return tensor.reshape(outer, inner, -1, *rest).transpose(0, 1).reshape(tensor.shape)


def _rotation(raw: dict[str, Any]) -> tuple[float, float]:
    """Rotary base and share from `rope_parameters` (transformers 5) or `rotary_emb_base` and `rotary_pct`."""
    base, share = raw.get("rotary_emb_base") or raw.get("rope_theta") or 10000.0, raw.get("rotary_pct")
    for field in ("rope_parameters", "rope_scaling"):
        settings = raw.get(field)
        if not settings:
            continue
        kind = settings.get("rope_type", settings.get("type", "default"))
        if kind != "default":
            raise ConfigError(f"config.json: {field} is of type {kind!r}, Fangcun knows 'default' only.")
        base = settings.get("rope_theta", base)
        share = settings.get("partial_rotary_factor", share)
    return float(base), _DEFAULT_SHARE if share is None else float(share)
