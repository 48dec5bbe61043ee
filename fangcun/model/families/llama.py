"""Llama, Mistral, Qwen2 and Qwen3: one set of names, told apart by biases, QK-norm and the size of a head."""

from __future__ import annotations

from typing import Any

import torch

from fangcun.config import ModelConfig
from fangcun.config.families import output_bias, qkv_bias
from fangcun.config.model import Family
from fangcun.errors import ConfigError
from fangcun.model.families.names import State, refuse_rest, take

_CLASSES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
# What transformers 5.23 takes for keys that a config.json leaves out, where that depends on the family.
_DEFAULT_GROUPS = {"mistral": 8, "qwen2": 32, "qwen3": 32}
_DEFAULT_HEAD_SIZE = {"qwen3": 128}
_DEFAULT_BLOCK_SIZE = {"llama": 2048, "mistral": 131072, "qwen2": 32768, "qwen3": 32768}


def to_hf_fields(config: ModelConfig) -> dict[str, Any]:
    """The shape in the words of the family's config class; both spellings of the rotary base, for old and new readers."""
    fields: dict[str, Any] = {
        "architectures": [_CLASSES[config.family]],
        "model_type": config.family,
        "vocab_size": config.padded_vocab_size,
        "hidden_size": config.n_embd,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.n_query_groups,
        "max_position_embeddings": config.block_size,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
        "attention_dropout": config.attention_dropout,
        "tie_word_embeddings": config.tie_embeddings,
    }
    if config.family != "qwen2":
        fields["head_dim"] = config.head_size
    if config.family in ("llama", "qwen3"):
        fields["attention_bias"] = qkv_bias(config)
    if config.family == "llama":
        fields["mlp_bias"] = config.bias
    if config.family == "mistral":
        fields["sliding_window"] = None
    if config.family in ("qwen2", "qwen3"):
        fields |= {"use_sliding_window": False, "sliding_window": None, "max_window_layers": config.n_layer}
    return fields


def from_hf_fields(raw: dict[str, Any]) -> ModelConfig:
    """The ModelConfig of a `config.json` of these families. Raises ConfigError naming what we do not have."""
    family: Family = raw["model_type"]
    for field in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
        if raw.get(field) is None:
            raise ConfigError(f"config.json: {field} is missing, needed to read a {family} model.")
    width, heads = int(raw["hidden_size"]), int(raw["num_attention_heads"])
    if raw.get("hidden_act", "silu") not in ("silu", "swish"):
        raise ConfigError(f"config.json: hidden_act is {raw['hidden_act']!r}, Fangcun knows {family} with 'silu' only.")
    attention_bias, mlp_bias = bool(raw.get("attention_bias", False)), bool(raw.get("mlp_bias", False))
    if family not in ("llama", "qwen3"):  # no setting of these classes: transformers does not look at it there
        attention_bias = family == "qwen2"
    if family != "llama":
        mlp_bias = False
    if mlp_bias and not attention_bias:
        raise ConfigError(
            "config.json: mlp_bias is true while attention_bias is false. Fangcun knows biases in attention alone, or everywhere."
        )
    block_size = int(raw.get("max_position_embeddings", _DEFAULT_BLOCK_SIZE[family]))
    _refuse_sliding_window(raw, family, block_size)
    return ModelConfig(
        family=family,
        block_size=block_size,
        vocab_size=int(raw["vocab_size"]),
        padded_vocab_size=int(raw["vocab_size"]),
        n_layer=int(raw["num_hidden_layers"]),
        n_head=heads,
        n_query_groups=int(raw.get("num_key_value_heads", _DEFAULT_GROUPS.get(family)) or heads),
        n_embd=width,
        head_size=int(raw.get("head_dim", _DEFAULT_HEAD_SIZE.get(family)) or width // heads),
        intermediate_size=int(raw["intermediate_size"]),
        norm_class="RMSNorm",
        norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
        mlp_class="SwiGLU",
        positions="rope",
        rope_base=_rope_base(raw),
        qk_norm=family == "qwen3",
        bias=mlp_bias,
        # Where biases are everywhere, `bias` says it all.
        attention_bias=attention_bias and not mlp_bias,
        tie_embeddings=bool(raw.get("tie_word_embeddings", False)),
        attention_dropout=float(raw.get("attention_dropout") or 0.0),
    )


def to_hf_state(config: ModelConfig, state: State) -> State:
    """Our tensors under the family's names; the fused query/key/value matrix is cut in three."""
    assert config.head_size is not None and config.n_query_groups is not None
    rows = [config.n_head * config.head_size, *[config.n_query_groups * config.head_size] * 2]
    hf = {"model.embed_tokens.weight": state["embedding.weight"], "model.norm.weight": state["norm.weight"]}
    for theirs, ours in _layers(config):
        for part in _parts(qkv_bias(config)):
            cut = state[f"{ours}.attention.qkv.{part}"].split(rows)
            for name, tensor in zip("qkv", cut, strict=True):
                hf[f"{theirs}.self_attn.{name}_proj.{part}"] = tensor
        for name, own in _same(config, theirs, ours):
            hf[name] = state[own]
    if not config.tie_embeddings:
        hf["lm_head.weight"] = state["head.weight"]
    return hf


def from_hf_state(config: ModelConfig, hf: State) -> State:
    """The family's tensors under our names; consumes `hf`. Rotary buffers of old files are dropped."""
    hf.pop("model.rotary_emb.inv_freq", None)
    state = {"embedding.weight": take(hf, "model.embed_tokens.weight"), "norm.weight": take(hf, "model.norm.weight")}
    for theirs, ours in _layers(config):
        hf.pop(f"{theirs}.self_attn.rotary_emb.inv_freq", None)
        for part in _parts(qkv_bias(config)):
            cut = [take(hf, f"{theirs}.self_attn.{name}_proj.{part}") for name in "qkv"]
            state[f"{ours}.attention.qkv.{part}"] = torch.cat(cut)
        for name, own in _same(config, theirs, ours):
            state[own] = take(hf, name)
    if not config.tie_embeddings:
        state["head.weight"] = take(hf, "lm_head.weight")
    refuse_rest(hf)
    return state


def _layers(config: ModelConfig) -> list[tuple[str, str]]:
    """(their prefix, our prefix) of each block."""
    return [(f"model.layers.{i}", f"blocks.{i}") for i in range(config.n_layer)]


def _parts(bias: bool) -> list[str]:
    return ["weight", "bias"] if bias else ["weight"]


def _same(config: ModelConfig, theirs: str, ours: str) -> list[tuple[str, str]]:
    """(their name, our name) of a block's tensors that are equal on both sides."""
    pairs = [
        ("input_layernorm.weight", "attention_norm.weight"),
        ("post_attention_layernorm.weight", "mlp_norm.weight"),
    ]
    pairs += [(f"self_attn.o_proj.{part}", f"attention.output.{part}") for part in _parts(output_bias(config))]
    if config.qk_norm:
        pairs += [("self_attn.q_norm.weight", "attention.query_norm.weight")]
        pairs += [("self_attn.k_norm.weight", "attention.key_norm.weight")]
    for name in ("gate", "up", "down"):
        pairs += [(f"mlp.{name}_proj.{part}", f"mlp.{name}.{part}") for part in _parts(config.bias)]
    return [(f"{theirs}.{name}", f"{ours}.{own}") for name, own in pairs]


def _rope_base(raw: dict[str, Any]) -> float:
    """The rotary base from `rope_parameters` (transformers 5) or `rope_theta`; anything but plain rotation is refused."""
    found = raw.get("rope_theta") or 10000.0
    for field in ("rope_parameters", "rope_scaling"):  # transformers reads both, the later one wins
        settings = raw.get(field)
        if not settings:
            continue
        kind = settings.get("rope_type", settings.get("type", "default"))
        if kind != "default":
            raise ConfigError(f"config.json: {field} is of type {kind!r}, Fangcun knows 'default' only.")
        _refuse_partial_rotation(f"{field}.partial_rotary_factor", settings.get("partial_rotary_factor"))
        found = settings.get("rope_theta", found)
    _refuse_partial_rotation("partial_rotary_factor", raw.get("partial_rotary_factor"))
    return float(found)


def _refuse_partial_rotation(field: str, share: float | None) -> None:
    if share not in (None, 1.0):
        raise ConfigError(f"config.json: {field} is {share}, Fangcun knows 1.0 for this family.")


def _refuse_sliding_window(raw: dict[str, Any], family: str, block_size: int) -> None:
    """Raise ConfigError when some layer would see less than all of `block_size`."""
    kinds = raw.get("layer_types") or []
    odd = sorted({str(kind) for kind in kinds} - {"full_attention", "sliding_attention"})
    if odd:
        raise ConfigError(f"config.json: layer_types has {', '.join(odd)}, Fangcun knows full_attention only.")
    if family == "llama":
        return
    if family == "mistral":
        window = raw.get("sliding_window", 4096)
    else:
        layers = raw["num_hidden_layers"]
        sliding = "sliding_attention" in kinds if kinds else raw.get("max_window_layers", 28) < layers
        window = raw.get("sliding_window", 4096) if raw.get("use_sliding_window") and sliding else None
    if window is not None and window < block_size:
        raise ConfigError(
            f"config.json: sliding_window is {window} with {block_size} positions, Fangcun knows full attention only. "
            f"For contexts of up to {window} tokens the two are the same: write max_position_embeddings: {window}."
        )
