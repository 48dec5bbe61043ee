"""Fangcun 方寸: your own text in, your own small language model out, on the machine you have.

`fangcun.load(path)` opens a trained model; every stage is importable from its room (`fangcun.corpus`, `fangcun.tokens`,
`fangcun.training` ...). Importing `fangcun` itself imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fangcun.version import __version__

if TYPE_CHECKING:
    from fangcun.errors import FangcunError as FangcunError
    from fangcun.generation import LanguageModel as LanguageModel
    from fangcun.generation import load as load

__all__ = ["FangcunError", "LanguageModel", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name in ("load", "LanguageModel"):
        from fangcun import generation

        return getattr(generation, name)
    if name == "FangcunError":
        from fangcun.errors import FangcunError

        return FangcunError
    raise AttributeError(f"module 'fangcun' has no attribute {name!r}")
