"""What an importer hands on: a model in our form, and what is worth knowing about where it came from."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch

from fangcun.config import ModelConfig, resolve_model
from fangcun.config.families import ABILITIES, obstacles
from fangcun.config.model import Family
from fangcun.errors import ConfigError, FangcunError
from fangcun.model import Transformer, check_state, model_of


@dataclass
class ForeignModel:
    """Another program's model, opened."""

    model: Transformer
    format: str
    """Such as "Hugging Face folder"."""
    folder: Path
    """Where a tokenizer is looked for, if none is named."""
    files: list[Path]
    """The files that the model was read from."""
    dtype: torch.dtype = torch.float32
    """The type that its weights had there, in which they are written too."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What the checkpoint says of itself, such as the step it was saved at."""
    generation: dict[str, Any] = field(default_factory=dict)
    """Settings of its generation_config.json that are kept, such as the ids that end a text."""
    notes: list[str] = field(default_factory=list)


@contextlib.contextmanager
def told_of(place: Path, stated_in: str) -> Iterator[None]:
    """Errors within the block name `place`, and what states the shape there in place of config.json."""
    try:
        yield
    except FangcunError as error:
        text = str(error).replace("config.json", stated_in)
        raise type(error)(text if text.startswith(str(place)) else f"{place}: {text}") from error


def build_model(config: ModelConfig, state: dict[str, torch.Tensor], place: Path) -> Transformer:
    """A Transformer of float32 weights out of a state under our names. Raises FangcunError where the two do not fit."""
    whole = {name: tensor.to(torch.float32).contiguous() for name, tensor in state.items()}
    return model_of(config, whole, "cpu", check=lambda model: check_state(place, model, whole))


def choose_family(config: ModelConfig) -> tuple[ModelConfig, list[str]]:
    """The resolved `config` with the first family that can express it, or `exportable: false`, and a note on that.

    `attention_bias` means the biases of query, key and value alone here. Raises ConfigError for a shape that
    contradicts itself.
    """
    own = dataclasses.replace(config, exportable=False, family="qwen2")
    resolved = resolve_model(own)
    for name, ability in ABILITIES.items():
        if config.attention_bias and not config.bias and ability.output_bias:
            continue  # there the word means the output's bias too
        found = dataclasses.replace(resolved, exportable=True, family=cast("Family", name))
        if not obstacles(found, name):
            return found, []
    return resolved, [
        "No family of Hugging Face has this shape: the checkpoint opens only in Fangcun (exportable: false)."
    ]


def sizes_agree(model: Transformer, n_ids: int, tokenizer: str) -> None:
    """Raise ConfigError when the tokenizer gives ids that the model has no row for."""
    rows = int(model.head_weight.shape[0])
    if n_ids > rows:
        raise ConfigError(
            f"{tokenizer} has {n_ids:,} ids, the model's vocabulary only {rows:,}: they do not belong together. Name the tokenizer that the model was trained with: --tokenizer PATH."
        )
