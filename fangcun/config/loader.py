"""From a recipe's name or file, and flags, to a checked Recipe. Strict: everything written is known, typed and used.

Order: the file (ours, or another tool's through its importer), then flags, then contradictions. Whether paths exist is
looked at later, by `check_inputs` and the stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from fangcun.config import litgpt, nanogpt
from fangcun.config.check import find_contradictions
from fangcun.config.convert import MismatchError, convert
from fangcun.config.findings import Given
from fangcun.config.flags import parse_flags
from fangcun.config.flatten import flatten
from fangcun.config.keys import recipe_keys, sections
from fangcun.config.presets import fill_in_presets, shipped_names
from fangcun.config.report import ImportReport
from fangcun.config.schema import Recipe
from fangcun.config.yaml_tree import Mapping, Node, parse_yaml, read_yaml
from fangcun.errors import ConfigError, did_you_mean

TEXTS = ("corpus.paths", "corpus.sources", "corpus.builtin")
"""Of these a recipe has one."""


@dataclass
class LoadedRecipe:
    """A checked recipe and where each of its explicit settings came from."""

    recipe: Recipe
    name: str
    """The shipped recipe's name, or the file's without its ending; the default run folder is runs/<name>."""
    origins: dict[str, str] = field(default_factory=dict)
    """Dotted key to "file:line" or "--flag"; a key that is not here has its default."""
    import_report: ImportReport | None = None
    """What became of each key of another tool's file."""


def recipe_names() -> list[str]:
    """The shipped recipes, by name."""
    return shipped_names("recipes")


def recipe_text(name: str) -> str:
    """The YAML of a shipped recipe."""
    return (resources.files("fangcun") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Load a shipped recipe by name, a YAML file or a nanoGPT config/*.py, and apply flags such as `["--train.max_steps", "20"]`.

    Raises ConfigError that lists every unknown key, wrong type, value out of range and contradiction with file and line
    (or the flag), and the nearest right key.
    """
    name, shown, tree, report = _read(source)
    if report is None and litgpt.is_litgpt(tree):
        tree, report = litgpt.import_litgpt(tree, shown)
    given, problems = flatten(tree, shown)
    flags, flag_problems = parse_flags(overrides)
    problems += flag_problems
    given_by_flag = {flag.key for flag in flags}
    if named := given_by_flag & set(TEXTS):  # --text replaces the text of the file, whatever kind that is
        for key in set(TEXTS) - named:
            given.pop(key, None)
    nodes: dict[str, tuple[Node, Given]] = {key: (node, Given(place, False)) for key, (node, place) in given.items()}
    nodes |= {flag.key: (flag.value, Given(flag.spelled, True)) for flag in flags}
    problems += fill_in_presets(nodes)

    values: dict[str, Any] = {}
    origins: dict[str, Given] = {}
    for key, (node, origin) in nodes.items():
        try:
            values[key] = convert(node, recipe_keys()[key].hint)
            origins[key] = origin
        except MismatchError as mismatch:
            label = origin.place if origin.by_flag else f"{origin.place}: {key}"
            problems.append(f"{label}: {mismatch}")
    if not problems:
        problems, unused = find_contradictions(build_recipe(values), origins)
        for key in unused:  # settings of the file that a flag made idle
            del values[key], origins[key]
        if not problems and unused:
            problems, _ = find_contradictions(build_recipe(values), origins)
    if problems:
        raise ConfigError(_list(problems, shown))
    return LoadedRecipe(build_recipe(values), name, {key: origin.place for key, origin in origins.items()}, report)


def build_recipe(values: dict[str, Any]) -> Recipe:
    """A Recipe with these settings (dotted key to value of the right type) and defaults elsewhere."""
    parts: dict[str, dict[str, Any]] = {name: {} for name in sections()}
    top: dict[str, Any] = {}
    for key, value in values.items():
        section, _, leaf = key.rpartition(".")
        (parts[section] if section else top)[leaf] = value
    return Recipe(**{name: cls(**parts[name]) for name, cls in sections().items()}, **top)


def _read(source: str | Path) -> tuple[str, str, Mapping, ImportReport | None]:
    """(name, what messages call the file, tree, the report where it is a Python file of nanoGPT's)."""
    text = str(source)
    is_path = isinstance(source, Path) or text.endswith((".yaml", ".yml", ".py")) or "/" in text or "\\" in text
    if not is_path and text in recipe_names():
        return text, f"{text}.yaml", parse_yaml(recipe_text(text), f"{text}.yaml"), None
    path = Path(text)
    if not path.exists():
        shipped = f"The shipped recipes are {', '.join(recipe_names())}."
        if is_path:
            raise ConfigError(f"{text}: no such recipe file. {shipped}")
        raise ConfigError(
            f"'{text}' is neither a shipped recipe nor a file.{did_you_mean(text, recipe_names())} {shipped}"
        )
    if path.suffix == ".py" and path.is_file():
        return path.stem, text, *nanogpt.import_nanogpt(path, text)
    return path.stem, text, read_yaml(path, text), None


def _list(problems: list[str], shown: str) -> str:
    if len(problems) == 1:
        return problems[0]
    return f"{len(problems)} mistakes in the recipe {shown} and its flags:\n" + "\n".join(
        f"  {problem}" for problem in problems
    )
