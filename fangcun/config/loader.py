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

from fangcun.config import litgpt
from fangcun.config.check import Given, find_contradictions
from fangcun.config.convert import MismatchError, convert
from fangcun.config.flags import parse_flags
from fangcun.config.keys import nearest_key, recipe_keys, sections
from fangcun.config.report import ImportReport
from fangcun.config.schema import Recipe
from fangcun.config.yaml_tree import Mapping, Node, Scalar, parse_yaml, read_yaml
from fangcun.errors import ConfigError, did_you_mean

PRESET_SECTIONS = ("clean", "filter", "dedup")
"""What a preset of cleaning may set."""


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
    return _names("recipes")


def _names(folder_name: str) -> list[str]:
    folder = resources.files("fangcun") / folder_name
    return sorted(entry.name[: -len(".yaml")] for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def recipe_text(name: str) -> str:
    """The YAML of a shipped recipe."""
    return (resources.files("fangcun") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Load a shipped recipe by name, or a YAML file, and apply flags such as `["--train.max_steps", "20"]`.

    Raises ConfigError that lists every unknown key, wrong type, value out of range and contradiction with file and line
    (or the flag), and the nearest right key.
    """
    name, shown, tree = _read(source)
    report = None
    if litgpt.is_litgpt(tree):
        tree, report = litgpt.import_litgpt(tree, shown)
    given, problems = _flatten(tree, shown)
    flags, flag_problems = parse_flags(overrides)
    problems += flag_problems
    given_by_flag = {flag.key for flag in flags}
    for one, other in (("corpus.paths", "corpus.builtin"), ("corpus.builtin", "corpus.paths")):
        if one in given_by_flag and other not in given_by_flag:
            given.pop(other, None)  # --text replaces a built-in text, and the other way round
    nodes: dict[str, tuple[Node, Given]] = {key: (node, Given(place, False)) for key, (node, place) in given.items()}
    nodes |= {flag.key: (flag.value, Given(flag.spelled, True)) for flag in flags}
    preset, preset_problems = _preset(nodes)
    problems += preset_problems
    nodes = preset | nodes

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


def preset_names() -> list[str]:
    """The shipped presets of cleaning, by name."""
    return _names("presets")


def _preset(nodes: dict[str, tuple[Node, Given]]) -> tuple[dict[str, tuple[Node, Given]], list[str]]:
    """The settings of the preset that `corpus.preset` names, which is taken out of `nodes`, and a sentence for each mistake."""
    if "corpus.preset" not in nodes:
        return {}, []
    node, origin = nodes.pop("corpus.preset")
    # As a flag, none is a spelling of null elsewhere; here it is a preset's name.
    if not isinstance(node, Scalar) or (node.is_null and node.text != "none"):
        return {}, []
    name, label = node.text, origin.place if origin.by_flag else f"{origin.place}: corpus.preset"
    if name in preset_names():
        shown = f"preset {name}"
        tree = parse_yaml((resources.files("fangcun") / "presets" / f"{name}.yaml").read_text(encoding="utf-8"), shown)
    elif name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            return {}, [f"{label}: there is no file '{name}'."]
        shown, tree = name, read_yaml(Path(name), name)
    else:
        names = ", ".join(preset_names())
        return {}, [
            f"{label}: '{name}' is no preset.{did_you_mean(name, preset_names())} They are {names}, or a YAML file."
        ]
    given, problems = _flatten(tree, shown)
    for key, (_, place) in given.items():
        if key.partition(".")[0] not in PRESET_SECTIONS:
            problems.append(f"{place}: {key}: a preset has the sections {', '.join(PRESET_SECTIONS)} only.")
    return {key: (node, Given(place, False)) for key, (node, place) in given.items()}, problems


def _read(source: str | Path) -> tuple[str, str, Mapping]:
    """(name, what messages call the file, tree)."""
    text = str(source)
    is_path = isinstance(source, Path) or text.endswith((".yaml", ".yml")) or "/" in text or "\\" in text
    if not is_path and text in recipe_names():
        return text, f"{text}.yaml", parse_yaml(recipe_text(text), f"{text}.yaml")
    path = Path(text)
    if not path.exists():
        shipped = f"The shipped recipes are {', '.join(recipe_names())}."
        if is_path:
            raise ConfigError(f"{text}: no such recipe file. {shipped}")
        raise ConfigError(
            f"'{text}' is neither a shipped recipe nor a file.{did_you_mean(text, recipe_names())} {shipped}"
        )
    return path.stem, text, read_yaml(path, text)


def _flatten(tree: Mapping, shown: str) -> tuple[dict[str, tuple[Node, str]], list[str]]:
    """Dotted key to (node, place) for every known key, and a sentence for each unknown one."""
    given: dict[str, tuple[Node, str]] = {}
    problems: list[str] = []
    keys = recipe_keys()

    def unknown(key: str, place: str) -> str:
        if key in keys and "." in key:
            section, leaf = key.split(".", 1)
            return f"{place}: {key}: write it nested, '{section}:' and below it '  {leaf}: …'."
        near = nearest_key(key)
        return f"{place}: {key}: unknown key." + (f" Did you mean '{near}'?" if near else "")

    for top, node in tree.entries.items():
        place = f"{shown}:{tree.lines[top]}"
        if top in sections():
            if isinstance(node, Mapping):
                for leaf, value in node.entries.items():
                    key, inner = f"{top}.{leaf}", f"{shown}:{node.lines[leaf]}"
                    if key in keys:
                        given[key] = (value, inner)
                    else:
                        problems.append(unknown(key, inner))
            elif not (isinstance(node, Scalar) and node.is_null):
                problems.append(
                    f"{place}: {top}: expected a section with settings below it, got a single value or a list."
                )
        elif top in keys and "." not in top:
            given[top] = (node, place)
        else:
            problems.append(unknown(top, place))
    return given, problems


def _list(problems: list[str], shown: str) -> str:
    if len(problems) == 1:
        return problems[0]
    return f"{len(problems)} mistakes in the recipe {shown} and its flags:\n" + "\n".join(
        f"  {problem}" for problem in problems
    )
