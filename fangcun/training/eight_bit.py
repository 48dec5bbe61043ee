"""AdamW with 8-bit moments (Dettmers et al. 2021) from torchao, an extra; its state goes to disk as plain tensors."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fangcun.config.schema import OptimizerConfig
from fangcun.errors import FangcunError

_PARTS = ("codes", "scale", "qmap")
"""Tensors that make up one quantised moment: the 8-bit codes, a scale a block, and the number that each code stands for."""


def check_torchao() -> None:
    """Raise FangcunError naming the package when it is not installed."""
    if importlib.util.find_spec("torchao") is None:
        raise FangcunError(
            "optimizer.name: adamw8bit needs the package torchao, which is not installed. "
            "Run pip install torchao, or take --optimizer.name adamw."
        )


def build_adamw8bit(groups: list[dict[str, Any]], config: OptimizerConfig) -> torch.optim.Optimizer:
    """torchao's AdamW8bit over `groups`. Moments of fewer than 4,096 entries stay float32."""
    check_torchao()
    from torchao.optim import AdamW8bit  # pyrefly: ignore [missing-import]

    return AdamW8bit(groups, lr=config.lr, betas=tuple(config.betas), eps=config.eps, weight_decay=config.weight_decay)


def plain_parts(entry: str, value: Any) -> dict[str, Tensor]:
    """An entry of an optimizer's state as plain tensors: itself, or the parts of a quantised one as `entry.part`."""
    if not torch.is_tensor(value):
        return {entry: torch.tensor(float(value))}
    if type(value).__name__ != "OptimState8bit":
        return {entry: value}
    return {f"{entry}.{part}": getattr(value, part) for part in _PARTS}


def join_parts(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `plain_parts` took apart, put together again."""
    entries = {name: tensor for name, tensor in tensors.items() if "." not in name}
    quantised = {name.partition(".")[0] for name in tensors if "." in name}
    if quantised:
        check_torchao()
        from torchao.optim.subclass_8bit import OptimState8bit  # pyrefly: ignore [missing-import]

        for entry in quantised:
            parts = [tensors[f"{entry}.{part}"] for part in _PARTS]
            # Of AdamW's two moments only the first has a sign.
            entries[entry] = OptimState8bit(*parts, signed=entry == "exp_avg", dtype=torch.float32)
    return entries
