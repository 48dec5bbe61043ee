"""How far a step moves the weights, compared with their size: about 1e-3 is healthy, far more or less is a hint."""

from __future__ import annotations

import math
import statistics

import torch
from torch import Tensor

from fangcun.model import Transformer, parameter_kinds
from fangcun.training.distributed import Ranks
from fangcun.training.tensors import is_sharded, local

_MATRICES = 8


class UpdateRatio:
    """|change| / |weight| of some matrices spread over the depth of the model; the median of them."""

    def __init__(self, model: Transformer, ranks: Ranks) -> None:
        kinds = parameter_kinds(model)
        matrices = [p for name, p in model.named_parameters() if kinds[name] == "matrix"]
        count = min(_MATRICES, len(matrices))
        self.chosen = [matrices[len(matrices) * k // count] for k in range(count)]
        self.ranks = ranks
        self.sharded = any(is_sharded(p) for p in self.chosen)
        self._before: list[Tensor] = []

    def before(self) -> None:
        """Call before the step: keeps a copy of the chosen matrices."""
        self._before = [local(p).detach().clone() for p in self.chosen]

    def after(self) -> float | None:
        """The ratio of the step since `before`; None where there is nothing to measure. All ranks call it together."""
        if not self._before:
            return None
        squares = []
        with torch.no_grad():
            for kept, parameter in zip(self._before, self.chosen, strict=True):
                change = local(parameter) - kept
                squares += [change.float().square().sum(), kept.float().square().sum()]
        self._before = []
        numbers = torch.stack(squares).tolist()
        if self.sharded:
            numbers = self.ranks.sums(*numbers)
        ratios = [math.sqrt(c / w) for c, w in zip(numbers[::2], numbers[1::2], strict=True) if w > 0]
        return statistics.median(ratios) if ratios else None
