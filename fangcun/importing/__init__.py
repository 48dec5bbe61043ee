"""Taking in what other programs made: models become runs, configurations become recipes.

Read as data, never executed: pickles are opened with weights alone, Python files by their syntax tree. What is not had
here is refused by name, and each import says what became of every part.
"""

from fangcun.importing.characters import characters_of
from fangcun.importing.foreign import ForeignModel
from fangcun.importing.huggingface import read_huggingface
from fangcun.importing.kinds import find_kind
from fangcun.importing.litgpt import read_litgpt
from fangcun.importing.nanogpt import read_nanogpt
from fangcun.importing.recipe import read_config_json, read_recipe, render_recipe
from fangcun.importing.run import write_run
from fangcun.importing.take import Taken, take_in

__all__ = [
    "ForeignModel",
    "Taken",
    "characters_of",
    "find_kind",
    "read_config_json",
    "read_huggingface",
    "read_litgpt",
    "read_nanogpt",
    "read_recipe",
    "render_recipe",
    "take_in",
    "write_run",
]
