"""The recipe: dataclasses that are schema, help and reference in one, and a strict loader for YAML and flags.

Errors name file and line (or the flag), what was expected and the nearest right key; all of them at once.
Configurations of other tools are read, never executed, with a report of what became of each key.
"""

from fangcun.config.dump import dump_recipe
from fangcun.config.inputs import check_inputs
from fangcun.config.keys import field_docs
from fangcun.config.loader import LoadedRecipe, load_recipe, recipe_names, recipe_text
from fangcun.config.model import ModelConfig
from fangcun.config.report import ImportReport
from fangcun.config.resolve import count_parameters, resolve_model
from fangcun.config.schema import (
    CheckpointConfig,
    CorpusConfig,
    EvalConfig,
    OptimizerConfig,
    Recipe,
    SamplesConfig,
    TokenizerConfig,
    TokensConfig,
    TrainConfig,
)

__all__ = [
    "CheckpointConfig",
    "CorpusConfig",
    "EvalConfig",
    "ImportReport",
    "LoadedRecipe",
    "ModelConfig",
    "OptimizerConfig",
    "Recipe",
    "SamplesConfig",
    "TokenizerConfig",
    "TokensConfig",
    "TrainConfig",
    "check_inputs",
    "count_parameters",
    "dump_recipe",
    "field_docs",
    "load_recipe",
    "recipe_names",
    "recipe_text",
    "resolve_model",
]
