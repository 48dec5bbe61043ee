"""GPT-2: learned positions, LayerNorm, GELU; Hugging Face stores its matrices transposed (Conv1D) and always with biases.

A model without biases is written with zero biases; our own config inside `config.json` says that they are none.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from fangcun.config import ModelConfig
from fangcun.errors import ConfigError
from fangcun.model.families.names import State, refuse_rest, take

_LINEARS = {
    "attn.c_attn": "attention.qkv",
    "attn.c_proj": "attention.output",
    "mlp.c_fc": "mlp.up",
    "mlp.c_proj": "mlp.down",
}
_NORMS = {"ln_1": "attention_norm", "ln_2": "mlp_norm"}


def to_hf_fields(config: ModelConfig) -> dict[str, Any]:
    """The shape in the words of `GPT2Config`."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.padded_vocab_size,
        "n_positions": config.block_size,
        "n_ctx": config.block_size,
        "n_embd": config.n_embd,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_inner": config.intermediate_size,
        "activation_function": "gelu_new" if config.gelu_approximate == "tanh" else "gelu",
        "layer_norm_epsilon": config.norm_eps,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.attention_dropout,
        "tie_word_embeddings": config.tie_embeddings,
    }


def from_hf_fields(raw: dict[str, Any]) -> ModelConfig:
    """The ModelConfig of a GPT-2 `config.json`. One dropout (`resid_pdrop`) stands for GPT-2's two."""
    for field, wanted in (
        ("scale_attn_weights", True),
        ("scale_attn_by_inverse_layer_idx", False),
        ("add_cross_attention", False),
    ):
        if raw.get(field, wanted) != wanted:
            raise ConfigError(
                f"config.json: {field} is {str(raw[field]).lower()}, Fangcun knows GPT-2 with {str(wanted).lower()} only."
            )
    activation = raw.get("activation_function", "gelu_new")
    if activation not in ("gelu_new", "gelu_pytorch_tanh", "gelu"):
        raise ConfigError(
            f"config.json: activation_function is {activation!r}, Fangcun knows GPT-2 with 'gelu_new' (the tanh form) and 'gelu' only."
        )
    width, heads = int(raw.get("n_embd", 768)), int(raw.get("n_head", 12))
    return ModelConfig(
        family="gpt2",
        block_size=int(raw.get("n_positions", 1024)),
        vocab_size=int(raw.get("vocab_size", 50257)),
        padded_vocab_size=int(raw.get("vocab_size", 50257)),
        n_layer=int(raw.get("n_layer", 12)),
        n_head=heads,
        n_query_groups=heads,
        n_embd=width,
        intermediate_size=int(raw.get("n_inner") or 4 * width),
        norm_class="LayerNorm",
        norm_eps=float(raw.get("layer_norm_epsilon", 1e-5)),
        mlp_class="GELU",
        gelu_approximate="none" if activation == "gelu" else "tanh",
        positions="learned",
        qk_norm=False,
        bias=True,
        tie_embeddings=bool(raw.get("tie_word_embeddings", True)),
        dropout=float(raw.get("resid_pdrop", 0.1)),
        attention_dropout=float(raw.get("attn_pdrop", 0.1)),
    )


def to_hf_state(config: ModelConfig, state: State) -> State:
    """Our tensors under GPT-2's names, matrices transposed, biases that we do not have as zeros."""
    hf = {
        "transformer.wte.weight": state["embedding.weight"],
        "transformer.wpe.weight": state["positions.weight"],
    }

    def add(theirs: str, ours: str, weight: torch.Tensor, width: int) -> None:
        hf[f"{theirs}.weight"] = weight
        bias = state.get(f"{ours}.bias")
        hf[f"{theirs}.bias"] = weight.new_zeros(width) if bias is None else bias

    for layer in range(config.n_layer):
        theirs, ours = f"transformer.h.{layer}", f"blocks.{layer}"
        for name, own in _NORMS.items():
            add(f"{theirs}.{name}", f"{ours}.{own}", state[f"{ours}.{own}.weight"], config.n_embd)
        for name, own in _LINEARS.items():
            weight = state[f"{ours}.{own}.weight"]
            add(f"{theirs}.{name}", f"{ours}.{own}", weight.T, weight.shape[0])
    add("transformer.ln_f", "norm", state["norm.weight"], config.n_embd)
    if not config.tie_embeddings:
        hf["lm_head.weight"] = state["head.weight"]
    return hf


def from_hf_state(config: ModelConfig, hf: State) -> State:
    """GPT-2's tensors under our names, all biases included. Takes files with and without the `transformer.` prefix.

    Consumes `hf`. See `drop_absent_biases` for models without biases.
    """
    for name in list(hf):
        if name.startswith("transformer."):
            hf[name.removeprefix("transformer.")] = hf.pop(name)
    for layer in range(config.n_layer):  # causal masks that old files carry
        hf.pop(f"h.{layer}.attn.bias", None)
        hf.pop(f"h.{layer}.attn.masked_bias", None)
    state = {"embedding.weight": take(hf, "wte.weight"), "positions.weight": take(hf, "wpe.weight")}
    for layer in range(config.n_layer):
        theirs, ours = f"h.{layer}", f"blocks.{layer}"
        for name, own in _NORMS.items():
            state[f"{ours}.{own}.weight"] = take(hf, f"{theirs}.{name}.weight")
            state[f"{ours}.{own}.bias"] = take(hf, f"{theirs}.{name}.bias")
        for name, own in _LINEARS.items():
            state[f"{ours}.{own}.weight"] = take(hf, f"{theirs}.{name}.weight").T
            state[f"{ours}.{own}.bias"] = take(hf, f"{theirs}.{name}.bias")
    state["norm.weight"], state["norm.bias"] = take(hf, "ln_f.weight"), take(hf, "ln_f.bias")
    if not config.tie_embeddings:
        state["head.weight"] = take(hf, "lm_head.weight")
    refuse_rest(hf)
    return state


def drop_absent_biases(config: ModelConfig, state: State) -> tuple[ModelConfig, State]:
    """Leave out the zero biases that `config` does not have; where one is not zero, the model has biases after all."""
    if config.bias:
        return config, state
    absent = [n for n in state if n.endswith(".bias") and not (config.attention_bias and n.endswith(".qkv.bias"))]
    if any(bool(state[name].any()) for name in absent):
        return dataclasses.replace(config, bias=True), state
    return config, {name: tensor for name, tensor in state.items() if name not in absent}
