"""A configuration of another program as a recipe: nanoGPT's `config/*.py`, litgpt's YAML, a Hugging Face `config.json`."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from fangcun.config import ImportReport, ModelConfig, Recipe, TokenizerConfig, TrainConfig, dump_recipe, load_recipe
from fangcun.config.convert import MismatchError, convert
from fangcun.config.dump import yaml_value
from fangcun.config.flatten import flatten
from fangcun.config.keys import recipe_keys
from fangcun.config.yaml_tree import parse_yaml
from fangcun.errors import ConfigError, FangcunError
from fangcun.importing.run import LONGEST_SAMPLE_TOKENS
from fangcun.model import from_hf_config

_FILLED = ("vocab_size", "padding_multiple", "exportable")
"""Fields of the model that the tokenizer decides, or that say nothing here."""
_NAMES = {
    "model_type": "family",
    "n_positions": "block_size",
    "max_position_embeddings": "block_size",
    "vocab_size": "padded_vocab_size",
    "hidden_size": "n_embd",
    "n_embd": "n_embd",
    "num_hidden_layers": "n_layer",
    "n_layer": "n_layer",
    "num_attention_heads": "n_head",
    "n_head": "n_head",
    "num_key_value_heads": "n_query_groups",
    "head_dim": "head_size",
    "intermediate_size": "intermediate_size",
    "n_inner": "intermediate_size",
    "rms_norm_eps": "norm_eps",
    "layer_norm_eps": "norm_eps",
    "layer_norm_epsilon": "norm_eps",
    "hidden_act": "mlp_class",
    "activation_function": "mlp_class",
    "rope_theta": "rope_base",
    "rope_parameters": "rope_base",
    "rotary_emb_base": "rope_base",
    "rotary_pct": "rotary_percentage",
    "use_parallel_residual": "parallel_residual",
    "attention_bias": "attention_bias",
    "mlp_bias": "bias",
    "tie_word_embeddings": "tie_embeddings",
    "resid_pdrop": "dropout",
    "hidden_dropout": "dropout",
    "attn_pdrop": "attention_dropout",
    "attention_dropout": "attention_dropout",
}
"""Their key -> our field, for the report."""


def read_recipe(file: Path) -> tuple[Recipe, ImportReport]:
    """The recipe of a nanoGPT or litgpt configuration, and the report. Raises ConfigError, also for a recipe of ours."""
    loaded = load_recipe(file)
    if loaded.import_report is None:
        raise ConfigError(f"{file} is a recipe of Fangcun's already: fangcun run {file}")
    return loaded.recipe, loaded.import_report


def read_config_json(file: Path) -> tuple[Recipe, ImportReport]:
    """A recipe that trains a new model of the shape in a `config.json`, with the tokenizer beside it if there is one.

    Raises ConfigError naming what Fangcun does not have.
    """
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read as JSON ({error}).") from error
    if not isinstance(raw, dict) or "model_type" not in raw:
        raise ConfigError(f"{file}: expected the config.json of a Hugging Face model, with a model_type.")
    try:
        config = from_hf_config(raw)
    except FangcunError as error:
        raise ConfigError(str(error).replace("config.json:", f"{file}:", 1)) from error
    report = ImportReport("Hugging Face", str(file))
    for key, value in raw.items():
        _report(report, key, value, config)
    default = ModelConfig()
    for field in dataclasses.fields(ModelConfig):
        value = getattr(config, field.name)
        if field.name not in (*_FILLED, *_NAMES.values()) and value != getattr(default, field.name):
            report.mapped.append(f"model.{field.name}: {yaml_value(value)} (follows from the family)")
    model = dataclasses.replace(config, vocab_size=None)
    length = min(config.block_size, LONGEST_SAMPLE_TOKENS)
    train = TrainConfig(epochs=1, max_seq_length=length if length < config.block_size else None)
    report.mapped.append(
        f"train.epochs: 1, train.max_seq_length: {length} (ours: a config.json says nothing of training)"
    )
    rows = config.padded_vocab_size or 0
    if any((file.parent / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        tokenizer = TokenizerConfig(path=os.path.abspath(file.parent))  # noqa: PTH100 - keeps links
        report.mapped.append(f"tokenizer.path: {tokenizer.path} (the tokenizer beside the file)")
    else:
        tokenizer = TokenizerConfig(vocab_size=rows)
        report.mapped.append(f"tokenizer.vocab_size: {rows:,} (a new one; --tokenizer.path PATH names the model's own)")
    recipe = Recipe(model=model, train=train, tokenizer=tokenizer)
    _check(recipe, file)
    return recipe, report


def _check(recipe: Recipe, file: Path) -> None:
    """Raise ConfigError for values that a recipe cannot have, such as no layers at all."""
    nodes, problems = flatten(parse_yaml(dump_recipe(recipe), str(file)), str(file))
    for key, (node, _) in nodes.items():
        try:
            convert(node, recipe_keys()[key].hint)
        except MismatchError as mismatch:
            problems.append(f"{file}: what becomes {key}: {mismatch}")
    if problems:
        raise ConfigError("\n".join(problems))


def _report(report: ImportReport, key: str, value: Any, config: ModelConfig) -> None:
    shown = json.dumps(value, ensure_ascii=False)
    shown = shown if len(shown) <= 60 else shown[:57] + "…"
    ours = _NAMES.get(key)
    if ours is None or value is None:
        report.without_effect.append(f"{key}: {shown} → nothing that the shape depends on")
    else:
        report.mapped.append(f"{key}: {shown} → model.{ours}: {yaml_value(getattr(config, ours))}")


def render_recipe(recipe: Recipe, report: ImportReport) -> str:
    """The recipe as YAML with the report as its head."""
    # Control characters, which a foreign file may hold, are no YAML even in a comment.
    head = "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in str(report))
    return dump_recipe(recipe, header=head)
