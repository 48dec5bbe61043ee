"""The command line's share of a recipe: `--train.max_steps 20`, `--text a.txt b.txt`, `--eval.initial_validation`.

Tokens become the same tree that YAML gives, so that one converter and one set of messages serve both.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fangcun.config.convert import is_optional, takes_bool, takes_sections, takes_several
from fangcun.config.keys import nearest_key, recipe_keys, sections
from fangcun.config.yaml_tree import Items, Node, Scalar

SHORT = {"text": "corpus.paths", "out": "out_dir"}
_FLAG = re.compile(r"--[A-Za-z]")


@dataclass(frozen=True)
class Flag:
    """One setting from the command line: the key, its value, and the flag as the user spelled it."""

    key: str
    value: Node
    spelled: str


def parse_flags(tokens: Sequence[str]) -> tuple[list[Flag], list[str]]:
    """Flags of the recipe among `tokens`, and a sentence for each token that is none."""
    raw: list[tuple[str, list[str]]] = []
    problems: list[str] = []
    for token in tokens:
        if _FLAG.match(token):
            name, equals, value = token.partition("=")
            raw.append((name, [value] if equals else []))
        elif raw:
            raw[-1][1].append(token)
        else:
            problems.append(f"'{token}': unexpected argument. Settings are written --section.key value.")

    merged: dict[str, tuple[str, list[str]]] = {}
    for spelled, values in raw:
        name = spelled[2:].replace("-", "_")
        key = SHORT.get(name, name)
        if key not in recipe_keys():
            problems.append(_unknown(spelled, key))
        elif key not in merged:
            merged[key] = (spelled, values)
        elif takes_several(recipe_keys()[key].hint):
            merged[key][1].extend(values)
        else:
            problems.append(f"{spelled}: given twice; give it once.")

    flags = []
    for key, (spelled, values) in merged.items():
        value = _value(spelled, key, values, problems)
        if value is not None:
            flags.append(Flag(key, value, spelled))
    return flags, problems


def _value(spelled: str, key: str, values: list[str], problems: list[str]) -> Node | None:
    hint = recipe_keys()[key].hint
    if takes_sections(hint):
        problems.append(f"{spelled}: holds sections, which no flag can write; write it in the recipe's file.")
        return None
    if not values:
        if takes_bool(hint):
            return Scalar("true", "flag")
        problems.append(f"{spelled}: needs a value.")
        return None
    scalars = tuple(Scalar(value, "flag") for value in values)
    if len(scalars) == 1 and (not takes_several(hint) or (is_optional(hint) and scalars[0].is_null)):
        return scalars[0]
    if takes_several(hint):
        return Items(scalars)
    problems.append(f"{spelled}: takes one value, got {len(values)}: {' '.join(values)}.")
    return None


def _unknown(spelled: str, key: str) -> str:
    if key in sections():
        some = ", ".join(f"--{name}" for name in recipe_keys() if name.startswith(key + "."))
        return f"{spelled}: is a section, not a setting. Its settings are {some}."
    near = nearest_key(key)
    return f"{spelled}: unknown setting." + (f" Did you mean '--{near}'?" if near else "")
