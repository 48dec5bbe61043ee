"""Keeps a run alive through bad steps: skips what is not finite or far out of line, and tells when to roll back.

A step whose loss or gradient norm lies beyond `sigmas` standard deviations above the mean of the last ones moves no
weight. Many in a row mean that the weights themselves are bad: then the run goes back to its newest checkpoint and past
the samples that were under way (as PaLM's authors did by hand; Chowdhery et al. 2022, section 5.1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from fangcun.config.schema import GuardConfig

_FEWEST = 20
"""Steps before a deviation means anything."""


@dataclass
class Guard:
    """Decides step by step. Its memory travels in the checkpoint: a resumed run decides as the undisturbed one would."""

    config: GuardConfig
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    bad_in_a_row: int = 0
    skipped: int = 0
    """Steps of the run that were skipped."""
    rollbacks: int = 0
    reason: str = ""
    """Why the last step was skipped."""
    approved_since_rollback: bool = True

    def approve(self, loss: float, norm: float, *, norm_may_overflow: bool = False) -> bool:
        """Whether the weights may move. `norm_may_overflow`: a gradient scaler deals with infinite norms itself."""
        self.reason = self._objection(loss, norm, norm_may_overflow)
        if self.reason:
            self.bad_in_a_row += 1
            self.skipped += 1
            return False
        self.bad_in_a_row, self.approved_since_rollback = 0, True
        for kept, value in ((self.losses, loss), (self.norms, norm)):
            if math.isfinite(value):
                kept.append(value)
                del kept[: -self.config.window_steps]
        return True

    @property
    def wants_rollback(self) -> bool:
        """Whether too many steps in a row were bad."""
        return self.bad_in_a_row >= self.config.rollback_after_steps

    def _objection(self, loss: float, norm: float, norm_may_overflow: bool) -> str:
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(norm):
            return "" if norm_may_overflow else f"the gradient norm is {norm}"
        if self.config.sigmas is None:
            return ""
        limits = (
            ("loss", loss, _limit(self.losses, self.config.sigmas, least_share=0.01)),
            # Norms vary by factors: their logarithm is what has a mean and a deviation.
            ("gradient norm", norm, _exp(_limit(_logs(self.norms), self.config.sigmas, least=0.1))),
        )
        for name, value, limit in limits:
            if value > limit:
                return f"the {name} {value:.4g} is above {limit:.4g} ({self.config.sigmas:g} sigma)"
        return ""

    def roll_back(self, state: dict[str, Any] | None) -> None:
        """The memory of the checkpoint that the run has gone back to; what was skipped stays counted."""
        skipped, rollbacks = self.skipped, self.rollbacks + 1
        self.restore(state or Guard(self.config).state())
        self.skipped, self.rollbacks, self.bad_in_a_row, self.approved_since_rollback = skipped, rollbacks, 0, False

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "losses": self.losses, "norms": self.norms, "bad_in_a_row": self.bad_in_a_row,
            "skipped": self.skipped, "rollbacks": self.rollbacks,
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        for name, value in state.items():
            setattr(self, name, list(value) if isinstance(value, list) else value)


def _limit(past: list[float], sigmas: float, *, least: float = 0.0, least_share: float = 0.0) -> float:
    """Mean + sigmas deviations of `past`; infinite while it is short.

    The deviation counts as `least`, and as `least_share` of the mean, at least: an even past must not make every wobble
    a spike.
    """
    if len(past) < _FEWEST:
        return math.inf
    mean = math.fsum(past) / len(past)
    deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in past) / len(past))
    return mean + sigmas * max(deviation, least, least_share * abs(mean))


def _logs(values: list[float]) -> list[float]:
    return [math.log(max(value, 1e-30)) for value in values]


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
