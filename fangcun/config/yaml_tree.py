"""YAML as a tree that remembers its lines: nothing is guessed here, scalars stay the text that was written.

Types are decided later by the schema (`convert`), so `3e-4` is a number where a number belongs and `no` is text where text
belongs. Duplicate keys are an error, tags of other languages are refused, nothing is ever executed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import yaml

from fangcun.errors import ConfigError

_NULLS = {"", "~", "null", "Null", "NULL"}
_MAX_DEPTH = 20


@dataclass(frozen=True)
class Scalar:
    """One value as it was written. `style` is "plain" or "quoted" in YAML, "flag" on the command line."""

    text: str
    style: str = "plain"
    line: int = 0

    @property
    def is_null(self) -> bool:
        if self.style == "flag":
            return self.text.lower() in ("null", "none")
        return self.style == "plain" and self.text in _NULLS


@dataclass(frozen=True)
class Items:
    """A YAML list, or the values of one flag."""

    items: tuple[Node, ...]
    line: int = 0


@dataclass(frozen=True)
class Mapping:
    """A YAML mapping. `lines` holds the line of each key."""

    entries: dict[str, Node] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    line: int = 0


Node: TypeAlias = Scalar | Items | Mapping


def read_yaml(path: Path, shown: str) -> Mapping:
    """Parse one YAML file; `shown` is what error messages call it.

    Raises ConfigError when it cannot be read, is no YAML, holds no mapping, or repeats a key.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except IsADirectoryError as error:
        raise ConfigError(f"{shown}: this is a folder; a recipe is a YAML file.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{shown}: not a UTF-8 text file (byte {error.start}); a recipe is YAML in UTF-8.") from error
    except OSError as error:
        raise ConfigError(f"{shown}: cannot be read: {error.strerror}.") from error
    return parse_yaml(text, shown)


def parse_yaml(text: str, shown: str) -> Mapping:
    """The tree of a YAML text. Raises ConfigError with `shown` and the line."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{shown}:{mark.line + 1}" if mark else shown
        raise ConfigError(f"{place}: not valid YAML: {error.problem or error.context}.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{shown}: not valid YAML: {' '.join(str(error).split())}.") from error
    except RecursionError as error:
        raise ConfigError(f"{shown}: nested too deeply for a recipe.") from error
    if root is None:
        raise ConfigError(
            f"{shown}: the file is empty; a recipe needs at least a stop condition such as train: {{max_steps: 100}}."
        )
    problems: list[str] = []
    tree = _convert(root, shown, problems, {}, 0)
    if problems:
        raise ConfigError("\n".join(problems))
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{shown}:{tree.line}: expected sections (key: value) at the top, got {describe(tree)}.")
    return tree


def describe(node: Node) -> str:
    """How an error message names a value that was given."""
    if isinstance(node, Scalar):
        return "nothing (null)" if node.is_null else f"'{_shorten(node.text)}'"
    if isinstance(node, Mapping):
        return "a section (key: value)"
    inner = ", ".join(_shorten(item.text) if isinstance(item, Scalar) else "…" for item in node.items[:5])
    return f"the list [{inner}{', …' if len(node.items) > 5 else ''}]"


def _shorten(text: str, limit: int = 60) -> str:
    text = text.replace("\n", "\\n")
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _convert(node: yaml.Node, shown: str, problems: list[str], done: dict[int, Node], depth: int) -> Node:
    line = node.start_mark.line + 1
    if id(node) in done:  # an alias: shared, so that nested aliases cannot blow up
        return done[id(node)]
    if depth > _MAX_DEPTH:
        raise ConfigError(f"{shown}:{line}: nested too deeply for a recipe.")
    if not node.tag.startswith("tag:yaml.org,2002:") or "python" in node.tag:
        problems.append(f"{shown}:{line}: the tag '{node.tag}' is not allowed; a recipe holds plain values only.")
        return Scalar("", "plain", line)
    result: Node
    if isinstance(node, yaml.ScalarNode):
        result = Scalar(node.value, "plain" if node.style is None else "quoted", line)
    elif isinstance(node, yaml.SequenceNode):
        result = Items(tuple(_convert(item, shown, problems, done, depth + 1) for item in node.value), line)
    else:
        result = Mapping(line=line)
        for key_node, value_node in node.value:
            key_line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                problems.append(f"{shown}:{key_line}: a key must be a word, not a list or a mapping.")
                continue
            key = key_node.value
            if key in result.entries:
                problems.append(
                    f"{shown}:{key_line}: the key '{key}' stands here a second time (first in line {result.lines[key]})."
                )
                continue
            result.entries[key] = _convert(value_node, shown, problems, done, depth + 1)
            result.lines[key] = key_line
    done[id(node)] = result
    return result
