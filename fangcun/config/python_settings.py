"""Settings in a Python file that is read and never run: `name = value` with literals and simple arithmetic of earlier names.

Programs such as nanoGPT execute such files. Here the syntax tree is looked at; what is more than that is named, not guessed.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from fangcun.errors import ConfigError

Value: TypeAlias = bool | int | float | str | None

_MAX_BYTES = 1_000_000
_MAX_EXPONENT = 64
_MAX_NUMBER = 10**30
_OPERATIONS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


class _UnclearError(Exception):
    """An expression that is more than a literal or simple arithmetic."""


@dataclass
class PythonSettings:
    """What a file assigns. Of several assignments to a name the last one counts, as it would when the file is run."""

    values: dict[str, tuple[Value, int]] = field(default_factory=dict)
    """Name -> (value, line)."""
    unclear: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Name -> (source text, line) of assignments that were not understood."""
    other: list[tuple[str, int]] = field(default_factory=list)
    """(source text, line) of statements that are no assignment of one name; imports and texts are left out."""


def read_python_settings(path: Path, shown: str) -> PythonSettings:
    """Read the assignments of a Python file; `shown` is what error messages call it.

    Raises ConfigError when it cannot be read or is no Python.
    """
    try:
        raw = path.read_bytes()
        if len(raw) > _MAX_BYTES:
            raise ConfigError(f"{shown}: {len(raw):,} bytes, expected a file of settings of at most {_MAX_BYTES:,}.")
        tree = ast.parse(raw.decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{shown}: cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{shown}: not a UTF-8 text file (byte {error.start}).") from error
    except SyntaxError as error:
        raise ConfigError(f"{shown}:{error.lineno or 1}: not valid Python: {error.msg}.") from error
    except (ValueError, RecursionError, MemoryError) as error:  # a null byte; nesting without end
        raise ConfigError(f"{shown}: not valid Python ({type(error).__name__}).") from error
    settings = PythonSettings()
    for statement in tree.body:
        _read(statement, settings)
    return settings


def _read(statement: ast.stmt, settings: PythonSettings) -> None:
    line, text = statement.lineno, _shortened(statement)
    if isinstance(statement, ast.Import | ast.ImportFrom | ast.Pass):
        return
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return  # a text on its own: a comment
    targets: list[ast.expr] = []
    value: ast.expr | None = None
    if isinstance(statement, ast.Assign):
        targets, value = statement.targets, statement.value
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        targets.append(statement.target)
        value = statement.value
    names = [target.id for target in targets if isinstance(target, ast.Name)]
    if value is None or len(names) != len(targets):
        settings.other.append((text, line))
        for name in {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}:
            if (
                name in settings.values
            ):  # changed in a way that is not followed, or only used: either way no longer known
                settings.unclear[name] = (text, line)
                del settings.values[name]
        return
    for name in names:
        settings.unclear.pop(name, None)
        settings.values.pop(name, None)
    try:
        found = _evaluate(value, settings)
    except _UnclearError:
        settings.unclear |= dict.fromkeys(names, (text, line))
    else:
        settings.values |= dict.fromkeys(names, (found, line))


def _evaluate(node: ast.expr, settings: PythonSettings) -> Value:
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float | str | None):
        return node.value
    if isinstance(node, ast.Name) and node.id in settings.values:
        return settings.values[node.id][0]
    if isinstance(node, ast.UnaryOp):
        inner = _evaluate(node.operand, settings)
        if isinstance(node.op, ast.Not):
            return not inner
        if isinstance(inner, int | float) and isinstance(node.op, ast.USub | ast.UAdd):
            return -inner if isinstance(node.op, ast.USub) else +inner
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        left, right = _evaluate(node.left, settings), _evaluate(node.right, settings)
        if isinstance(left, str) and isinstance(right, str) and isinstance(node.op, ast.Add):
            return left + right
        if isinstance(left, int | float) and isinstance(right, int | float):
            return _calculate(node.op, left, right)
    raise _UnclearError


def _calculate(sign: ast.operator, left: float, right: float) -> Value:
    if isinstance(sign, ast.Pow) and abs(right) > _MAX_EXPONENT:
        raise _UnclearError
    try:
        result = _OPERATIONS[type(sign)](left, right)
    except ArithmeticError as error:
        raise _UnclearError from error
    if not isinstance(result, int | float) or abs(result) > _MAX_NUMBER:
        raise _UnclearError
    return result


def _shortened(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 80 else text[:77] + "…"
