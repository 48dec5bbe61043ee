"""What each Hugging Face family can express, as data: which values a ModelConfig's fields may have to be written as it.

Sources: `configuration_*.py` and `modeling_*.py` of transformers 5.23 for GPT-2, GPT-NeoX, Llama, Mistral, Qwen2
and Qwen3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fangcun.config.model import ModelConfig
from fangcun.errors import ConfigError


@dataclass(frozen=True)
class Ability:
    """Limits of one family."""

    fixed: dict[str, Any]
    """Field -> the only value that the family knows."""
    grouped_queries: bool = True
    free_head_size: bool = False
    """head_size need not be n_embd / n_head."""
    width_of_whole_heads: bool = False
    """n_embd must be a multiple of n_head whatever head_size is (checked by transformers 5 when it reads the config)."""
    output_bias: bool = False
    """attention_bias means the attention output's bias too, as it does in the family's own config.json."""


_PLAIN = {
    "rotary_percentage": 1.0,
    "parallel_residual": False,
    "scale_embeddings": False,
    "logit_softcap": None,
    "ngram_rows": None,
}
_ROPE = {**_PLAIN, "norm_class": "RMSNorm", "mlp_class": "SwiGLU", "positions": "rope"}

ABILITIES: dict[str, Ability] = {
    "gpt2": Ability(
        {**_PLAIN, "norm_class": "LayerNorm", "mlp_class": "GELU", "positions": "learned", "qk_norm": False},
        grouped_queries=False,
        width_of_whole_heads=True,
    ),
    "gpt_neox": Ability(
        {
            **{
                field: value
                for field, value in _PLAIN.items()
                if field not in ("rotary_percentage", "parallel_residual")
            },
            "norm_class": "LayerNorm",
            "mlp_class": "GELU",
            "positions": "rope",
            "qk_norm": False,
        },
        grouped_queries=False,
        width_of_whole_heads=True,
    ),
    "llama": Ability({**_ROPE, "qk_norm": False}, free_head_size=True, width_of_whole_heads=True, output_bias=True),
    "mistral": Ability({**_ROPE, "qk_norm": False, "bias": False, "attention_bias": False}, free_head_size=True),
    "qwen2": Ability({**_ROPE, "qk_norm": False, "bias": False, "attention_bias": True}),
    "qwen3": Ability({**_ROPE, "qk_norm": True, "bias": False}, free_head_size=True, output_bias=True),
}


def qkv_bias(config: ModelConfig) -> bool:
    """Whether the query, key and value projections have biases."""
    return config.bias or config.attention_bias


def output_bias(config: ModelConfig) -> bool:
    """Whether the attention output has a bias: with `bias`, and where the family means it by `attention_bias`."""
    return config.bias or (config.attention_bias and ABILITIES[config.family].output_bias)


def obstacles(config: ModelConfig, family: str) -> list[tuple[str, str]]:
    """What keeps a resolved `config` from being written as `family`: (field, sentence with value and expectation)."""
    ability = ABILITIES[family]
    found = [
        (field, f"{field} is {_shown(getattr(config, field))}, {family} has {_shown(value)}")
        for field, value in ability.fixed.items()
        # A learned table has nothing to rotate, so the share is without meaning there.
        if getattr(config, field) != value and not (field == "rotary_percentage" and config.positions == "learned")
    ]
    if not ability.grouped_queries and config.n_query_groups != config.n_head:
        found.append(
            ("n_query_groups", f"n_query_groups is {config.n_query_groups}, {family} has n_head ({config.n_head})")
        )
    if ability.width_of_whole_heads and config.n_embd % config.n_head:
        found.append(("n_embd", f"n_embd is {config.n_embd}, {family} wants a multiple of n_head ({config.n_head})"))
    elif not ability.free_head_size and config.n_head * (config.head_size or 0) != config.n_embd:
        found.append(
            ("head_size", f"head_size is {config.head_size}, {family} has n_embd / n_head ({config.n_embd / config.n_head:g})")
        )  # fmt: skip
    return found


def check_exportable(config: ModelConfig) -> None:
    """Raise ConfigError when the family of a resolved `config` cannot express it, naming each field, value and remedy.

    A config that says `exportable: false` passes.
    """
    if not config.exportable:
        return
    found = obstacles(config, config.family)
    if not found:
        return
    others = [name for name in ABILITIES if name != config.family and not obstacles(config, name)]
    remedy = " or ".join(
        [
            "change " + ("them" if len(found) > 1 else "it"),
            *(f"set family: {name}" for name in others),
            "write exportable: false (then checkpoints open only in Fangcun)",
        ]
    )
    raise ConfigError(
        f"model: family {config.family} cannot express this shape: {'; '.join(text for _, text in found)}. "
        f"Do one of these: {remedy}."
    )


def _shown(value: Any) -> str:
    """A value as YAML writes it."""
    if value is None or isinstance(value, bool):
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
