"""The recipe: dataclasses that are schema, help and reference in one, and a strict loader for YAML and flags.

Errors name file and line (or the flag), what was expected and the nearest right key; all of them at once.
Configurations of other tools are read, never executed, with a report of what became of each key.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fangcun.config.cleaning import CleanConfig, DedupConfig, FilterConfig, Rules
    from fangcun.config.cluster import ClusterConfig
    from fangcun.config.corpus import MixConfig, SourceConfig
    from fangcun.config.dump import dump_recipe
    from fangcun.config.inputs import check_inputs
    from fangcun.config.keys import field_docs
    from fangcun.config.loader import LoadedRecipe, load_recipe, recipe_names, recipe_text
    from fangcun.config.model import ModelConfig
    from fangcun.config.presets import preset_names
    from fangcun.config.report import ImportReport
    from fangcun.config.resolve import count_parameters, resolve_model
    from fangcun.config.schema import (
        CheckpointConfig,
        CorpusConfig,
        EvalConfig,
        GuardConfig,
        InitConfig,
        OptimizerConfig,
        Recipe,
        SamplesConfig,
        TokenizerConfig,
        TokensConfig,
        TrackingConfig,
        TrainConfig,
    )

__all__ = [
    "CheckpointConfig",
    "CleanConfig",
    "ClusterConfig",
    "CorpusConfig",
    "DedupConfig",
    "EvalConfig",
    "FilterConfig",
    "GuardConfig",
    "ImportReport",
    "InitConfig",
    "LoadedRecipe",
    "MixConfig",
    "ModelConfig",
    "OptimizerConfig",
    "Recipe",
    "Rules",
    "SamplesConfig",
    "SourceConfig",
    "TokenizerConfig",
    "TokensConfig",
    "TrackingConfig",
    "TrainConfig",
    "check_inputs",
    "count_parameters",
    "dump_recipe",
    "field_docs",
    "load_recipe",
    "preset_names",
    "recipe_names",
    "recipe_text",
    "resolve_model",
]

# Where a public name lives, if not in `schema`. Resolved at first use: `fangcun --help` reads no YAML library.
_HOMES = {
    "CleanConfig": "cleaning",
    "ClusterConfig": "cluster",
    "DedupConfig": "cleaning",
    "FilterConfig": "cleaning",
    "ImportReport": "report",
    "MixConfig": "corpus",
    "Rules": "cleaning",
    "SourceConfig": "corpus",
    "LoadedRecipe": "loader",
    "ModelConfig": "model",
    "check_inputs": "inputs",
    "count_parameters": "resolve",
    "dump_recipe": "dump",
    "field_docs": "keys",
    "load_recipe": "loader",
    "preset_names": "presets",
    "recipe_names": "loader",
    "recipe_text": "loader",
    "resolve_model": "resolve",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'fangcun.config' has no attribute {name!r}")
    return getattr(importlib.import_module(f"fangcun.config.{_HOMES.get(name, 'schema')}"), name)
