"""A recipe as YAML that `load_recipe` reads back to the same recipe."""

from __future__ import annotations

import dataclasses
from typing import Any

import yaml

from fangcun.config.check import idle_settings
from fangcun.config.corpus import SourceConfig
from fangcun.config.keys import sections
from fangcun.config.schema import Recipe


class _Dumper(yaml.SafeDumper):
    """Lists and tuples on one line, floats that keep every bit and read as numbers everywhere."""


def _float(dumper: yaml.SafeDumper, value: float) -> yaml.Node:
    text = repr(value)
    if "e" in text and "." not in text:  # YAML 1.1 takes 1e-05 for text; 1.0e-05 is a number to every reader
        text = text.replace("e", ".0e")
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


_Dumper.add_representer(float, _float)
_Dumper.add_representer(
    tuple, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=True)
)
_Dumper.add_representer(
    list, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=True)
)


def _plain(value: Any) -> Any:
    """Sections within a setting as mappings. Of a source what it says; a null within a section says something too."""
    if dataclasses.is_dataclass(value):
        said = vars(value).items()
        return {n: _plain(inner) for n, inner in said if inner is not None or not isinstance(value, SourceConfig)}
    return {name: _plain(inner) for name, inner in value.items()} if isinstance(value, dict) else value


def yaml_value(value: Any) -> str:
    """One setting's value as YAML writes it, on one line."""
    text = yaml.dump({"value": value}, Dumper=_Dumper, allow_unicode=True, width=10**9, default_flow_style=False)
    return text.removeprefix("value: ").rstrip("\n")


def dump_recipe(recipe: Recipe, header: str = "The whole recipe of this run, defaults included.") -> str:
    """YAML text with every setting that counts; `header` becomes comment lines at its top.

    A setting that nothing reads (`tokenizer.vocab_size` beside `tokenizer.path`, the model's shape beside `init_from`) is
    left out, as it would be refused when the text is loaded again.
    """
    idle = set(idle_settings(recipe))
    lines = [f"# {line}".rstrip() for line in header.splitlines()]
    for top in dataclasses.fields(recipe):
        value = getattr(recipe, top.name)
        if top.name == "model" and recipe.init_from is not None:
            continue
        if top.name in sections():
            value = {
                field.name: _plain(getattr(value, field.name))
                for field in dataclasses.fields(value)
                if f"{top.name}.{field.name}" not in idle
            }
        text = yaml.dump(
            {top.name: value},
            Dumper=_Dumper,
            allow_unicode=True,
            sort_keys=False,
            width=10**9,
            default_flow_style=False,
        )
        lines.append(text.rstrip("\n"))
    return "\n".join(lines) + "\n"
