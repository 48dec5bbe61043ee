"""A written value becomes the field's type, or a sentence says what was expected.

The same rules for YAML and flags: the dataclass decides. Numbers are finite; a whole number may be written 1_000_000 or 1e6.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from fangcun.config.constraints import Bounds
from fangcun.config.yaml_tree import Items, Mapping, Node, Scalar, describe
from fangcun.errors import did_you_mean

_INT = re.compile(r"[+-]?[0-9][0-9_]*")
_EXPONENT_INT = re.compile(r"[+]?[0-9][0-9_]*(\.[0-9]+)?[eE][+]?[0-9]+")
_FLOAT = re.compile(r"[+-]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9][0-9_]*)([eE][+-]?[0-9]+)?")
_BOOLS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class MismatchError(Exception):
    """The value does not fit the type. The text is "expected …, got …"."""


def convert(node: Node, hint: Any) -> Any:
    """The value of `node` as type `hint` (of a recipe's field). Raises MismatchError."""
    try:
        return _convert(node, hint)
    except MismatchError as mismatch:
        if mismatch.args:
            raise
        raise MismatchError(f"expected {expectation(hint)}, got {describe(node)}.{_hint(node, hint)}") from None


def expectation(hint: Any) -> str:
    """A type in words: "a whole number >= 1 or null"."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        bounds = [str(extra) for extra in args[1:] if isinstance(extra, Bounds)]
        return " ".join([expectation(args[0]), *bounds])
    if origin in (Union, types.UnionType):
        words = [expectation(arg) for arg in args if arg is not type(None)]
        return " or ".join(words + ["null"] * (type(None) in args))
    if origin is Literal:
        return ("one of " if len(args) > 1 else "") + ", ".join(f"'{arg}'" for arg in args)
    if origin is list:
        return f"a list (each item: {expectation(args[0])})"
    if origin is tuple:
        return f"{len(args)} values, each {expectation(args[0])}"
    if origin is dict:
        return f"a section (each value: {expectation(args[1])})"
    if dataclasses.is_dataclass(hint):
        return "a section"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[hint]


def is_optional(hint: Any) -> bool:
    """Whether null is a value of this type."""
    return get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint)


def takes_bool(hint: Any) -> bool:
    """Whether a flag of this type may stand alone and then means true."""
    return hint is bool or (get_origin(hint) in (Union, types.UnionType) and bool in get_args(hint))


def takes_several(hint: Any) -> bool:
    """Whether a flag of the type takes several values: lists, tuples and mappings (`name=value`)."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(takes_several(arg) for arg in get_args(hint))
    return get_origin(hint) in (list, tuple, dict)


def _takes_list(hint: Any) -> bool:
    if get_origin(hint) in (Union, types.UnionType):
        return any(_takes_list(arg) for arg in get_args(hint))
    return get_origin(hint) in (list, tuple)


def takes_sections(hint: Any) -> bool:
    """Whether the type holds sections, which no flag can write."""
    return (isinstance(hint, type) and dataclasses.is_dataclass(hint)) or any(
        takes_sections(arg) for arg in get_args(hint)
    )


def _convert(node: Node, hint: Any) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        value = _convert(node, args[0])
        if any(isinstance(extra, Bounds) and not extra.holds(value) for extra in args[1:]):
            raise MismatchError
        return value
    if origin in (Union, types.UnionType):
        return _union(node, args)
    if origin in (list, tuple):
        if not isinstance(node, Items):
            raise MismatchError
        if origin is tuple and len(node.items) != len(args):
            raise MismatchError
        item_hints = args if origin is tuple else [args[0]] * len(node.items)
        return origin(_convert(item, item_hint) for item, item_hint in zip(node.items, item_hints, strict=True))
    if origin is dict:
        entries = _entries(node)
        return _dict(entries, *args)
    if dataclasses.is_dataclass(hint):
        return _section(node, hint)
    if not isinstance(node, Scalar):
        raise MismatchError
    if origin is Literal:
        if node.text in args:
            return node.text
        raise MismatchError
    return _scalar(node, hint)


def _dict(entries: Mapping, key_hint: Any, value_hint: Any) -> dict[Any, Any]:
    result: dict[Any, Any] = {}
    for name, value in entries.entries.items():
        key = _inner(Scalar(name, "flag" if key_hint is str else "plain"), key_hint, name, entries)
        if key in result:
            raise MismatchError(f"{name}: stands here twice.")
        result[key] = _inner(value, value_hint, name, entries)
    return result


def _entries(node: Node) -> Mapping:
    """A mapping as YAML or flags write it: `a=1 b=2`, and one within another as `8:a=1,b=2`."""
    if isinstance(node, Mapping):
        if not node.entries:
            raise MismatchError("expected at least one name, got an empty section.")
        return node
    entries: dict[str, Node] = {}
    for item in node.items if isinstance(node, Items) else ():
        if not isinstance(item, Scalar) or item.style != "flag":
            raise MismatchError
        name, colon, inner = item.text.partition(":")
        if colon:
            value: Node = Items(tuple(Scalar(text, "flag") for text in inner.split(",")))
        else:
            name, _, text = item.text.partition("=")
            value = Scalar(text, "flag")
        if not name or name in entries:
            raise MismatchError(f"expected name=value for each name once, got '{item.text}'.")
        entries[name] = value
    if not entries:
        raise MismatchError
    return Mapping(entries)


def _inner(node: Node, hint: Any, name: str, parent: Mapping) -> Any:
    """A value within a mapping; what is wrong with it names its key and line."""
    try:
        return convert(node, hint)
    except MismatchError as mismatch:
        line = f" (line {parent.lines[name]})" if name in parent.lines else ""
        raise MismatchError(f"{name}{line}: {mismatch}") from None


def _section(node: Node, cls: Any) -> Any:
    if not isinstance(node, Mapping):
        raise MismatchError
    hints = get_type_hints(cls, include_extras=True)
    for name in node.entries:
        if name not in hints:
            raise MismatchError(f"{name} (line {node.lines[name]}): unknown key.{did_you_mean(name, list(hints))}")
    return cls(**{name: _inner(value, hints[name], name, node) for name, value in node.entries.items()})


def _union(node: Node, args: tuple[Any, ...]) -> Any:
    if type(None) in args and isinstance(node, Scalar) and node.is_null:
        return None
    told: MismatchError | None = None
    for arg in sorted(args, key=lambda arg: arg is str):  # text takes anything, so it comes last
        if arg is not type(None):
            try:
                return _convert(node, arg)
            except MismatchError as mismatch:
                told = told or mismatch
    raise told if told is not None and told.args else MismatchError


def _scalar(node: Scalar, hint: type) -> Any:
    if hint is str:
        if node.is_null and node.style != "flag":
            raise MismatchError
        return node.text
    if node.style == "quoted":
        raise MismatchError
    text = node.text.strip()
    if hint is bool and text.lower() in _BOOLS:
        return _BOOLS[text.lower()]
    if hint is int:
        if _INT.fullmatch(text) and len(text) < 40:
            return int(text)
        if _EXPONENT_INT.fullmatch(text) and float(text).is_integer():
            return int(float(text))
    if hint is float and _FLOAT.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    raise MismatchError


def _hint(node: Node, hint: Any) -> str:
    """What to do next, where it is plain from the value."""
    choices = [choice for arg in (hint, *get_args(hint)) if get_origin(arg) is Literal for choice in get_args(arg)]
    if isinstance(node, Scalar) and choices:
        longer = [choice for choice in choices if node.text and choice.startswith(node.text)]
        if node.text in choices:
            return f" Write it in brackets: [{node.text}]."
        return f" Did you mean '{longer[0]}'?" if len(longer) == 1 else did_you_mean(node.text, choices)
    if isinstance(node, Scalar) and _takes_list(hint) and node.style != "flag" and not node.is_null:
        return f" Write it in brackets: [{node.text}]."
    if isinstance(node, Scalar) and node.style == "quoted" and not node.is_null:
        return " Remove the quotes."
    if isinstance(node, Mapping):
        return " It is a setting, not a section."
    return ""
