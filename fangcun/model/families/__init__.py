"""Our names and Hugging Face's, both ways: the config and the weights of GPT-2, GPT-NeoX, Llama, Mistral,
Qwen2 and Qwen3.

What a family cannot express is refused by name, on writing as on reading. Weights carry over value by value.
Models that say `exportable: false` are written under our own names, and open only here.
"""

from __future__ import annotations

import dataclasses
from types import ModuleType
from typing import Any, get_args, get_type_hints

import torch

from fangcun.config import ModelConfig, resolve_model
from fangcun.config.families import ABILITIES, check_exportable
from fangcun.errors import ConfigError, did_you_mean
from fangcun.model.families import gpt2, gpt_neox, llama
from fangcun.model.families.names import State

__all__ = ["check_exportable", "from_hf_config", "from_hf_state", "to_hf_config", "to_hf_state"]

OWN_KEY = "fangcun"
"""Key of config.json that holds our whole ModelConfig. transformers keeps it and does not use it."""

_HOMES: dict[str, ModuleType] = {"gpt2": gpt2, "gpt_neox": gpt_neox}
"""The mapping of a family; the others share one."""


def to_hf_config(
    config: ModelConfig,
    *,
    eos_id: int | None = None,
    pad_id: int | None = None,
    bos_id: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Any]:
    """The content of `config.json` for a resolved config. Raises ConfigError when the family cannot express it."""
    check_exportable(config)
    if not config.exportable:
        fields: dict[str, Any] = {"architectures": ["FangcunForCausalLM"], "model_type": "fangcun"}
    else:
        fields = _HOMES.get(config.family, llama).to_hf_fields(config)
    name = str(dtype).removeprefix("torch.")
    return {
        **fields,
        "initializer_range": 0.02,
        "use_cache": True,
        "bos_token_id": bos_id,
        "eos_token_id": eos_id,
        "pad_token_id": pad_id,
        # transformers 4.56 and later read dtype, older ones torch_dtype.
        "dtype": name,
        "torch_dtype": name,
        OWN_KEY: dataclasses.asdict(config),
    }


def from_hf_config(raw: dict[str, Any]) -> ModelConfig:
    """The resolved ModelConfig of a `config.json`. Raises ConfigError naming what Fangcun does not have.

    Our own config inside it is believed as long as it agrees with the fields around it: a program that resized the
    embedding or edited a field knows nothing of ours.
    """
    own = _own_config(raw)
    if own is not None and not own.exportable:
        return own
    theirs = _from_hf_fields(raw)
    if own is not None and _from_hf_fields(to_hf_config(own)) == theirs:
        return own
    return theirs


def to_hf_state(config: ModelConfig, state: State) -> State:
    """The state dict of a Transformer under the family's names. Tensors are views, not copies, where possible."""
    if not config.exportable:
        return dict(state)
    return _HOMES.get(config.family, llama).to_hf_state(config, state)


def from_hf_state(config: ModelConfig, hf: State) -> tuple[ModelConfig, State]:
    """A family's state dict under our names, and the config that it fits; consumes `hf`.

    The config differs from the one given only where a GPT-2 or GPT-NeoX that was ours and had no biases got some elsewhere.
    Raises FangcunError naming tensors that are missing or left over.
    """
    if not config.exportable:
        return config, hf
    if config.tie_embeddings:
        _drop_tied_head(hf)
    state = _HOMES.get(config.family, llama).from_hf_state(config, hf)
    return gpt2.drop_absent_biases(config, state) if config.family in _HOMES else (config, state)


def _from_hf_fields(raw: dict[str, Any]) -> ModelConfig:
    kind = raw.get("model_type")
    if not isinstance(kind, str) or kind not in ABILITIES:
        hint = did_you_mean(str(kind), ABILITIES)
        raise ConfigError(f"config.json: model_type is {kind!r}, Fangcun reads {', '.join(ABILITIES)}.{hint}")
    if raw.get("quantization_config"):
        raise ConfigError(
            "config.json: quantization_config is set. Fangcun reads float weights: take the original model."
        )
    try:
        return resolve_model(_HOMES.get(str(kind), llama).from_hf_fields(raw))
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ConfigError(f"config.json: a field of this {kind} model has the wrong type or size ({error}).") from error


def _own_config(raw: dict[str, Any]) -> ModelConfig | None:
    own = raw.get(OWN_KEY)
    if not isinstance(own, dict):
        return None
    hints = get_type_hints(ModelConfig)
    unknown = sorted(set(own) - set(hints))
    if unknown:
        raise ConfigError(
            f"config.json: {OWN_KEY}.{unknown[0]} is not known to this version. Use the one that wrote it, or a newer one."
        )
    for name, value in own.items():
        choices = get_args(hints[name])
        if choices and all(isinstance(choice, str) for choice in choices) and value not in choices:
            raise ConfigError(f"config.json: {OWN_KEY}.{name} is {value!r}, expected one of {', '.join(choices)}.")
    return resolve_model(ModelConfig(**own))


def _drop_tied_head(hf: State) -> None:
    """Some writers store the head beside the embedding that it is. Raises ConfigError when the two differ."""
    name = "lm_head.weight" if "lm_head.weight" in hf else "embed_out.weight"
    head = hf.pop(name, None)
    names = ("transformer.wte.weight", "wte.weight", "model.embed_tokens.weight", "gpt_neox.embed_in.weight")
    embedding = next((hf[name] for name in names if name in hf), None)
    if head is not None and embedding is not None and not torch.equal(head, embedding):
        raise ConfigError(
            f"config.json: tie_word_embeddings is true, but {name} differs from the embedding. Write false there."
        )
