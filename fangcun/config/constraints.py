"""Bounds that a recipe's fields carry in their type, so that schema, check and help say the same thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True)
class Bounds:
    """An interval for a number. `None` leaves a side open; `exclusive_low` makes the lower bound strict."""

    low: float | None = None
    high: float | None = None
    exclusive_low: bool = False
    exclusive_high: bool = False

    def holds(self, value: float) -> bool:
        """Whether `value` lies in the interval (NaN never does)."""
        if value != value:
            return False
        if self.low is not None and (value < self.low or (self.exclusive_low and value == self.low)):
            return False
        return not (self.high is not None and (value > self.high or (self.exclusive_high and value == self.high)))

    def __str__(self) -> str:
        parts = []
        if self.low is not None:
            parts.append(f"{'>' if self.exclusive_low else '>='} {self.low:g}")
        if self.high is not None:
            parts.append(f"{'<' if self.exclusive_high else '<='} {self.high:g}")
        return " and ".join(parts) or "any number"


PositiveInt = Annotated[int, Bounds(low=1)]
NonNegativeInt = Annotated[int, Bounds(low=0)]
PositiveFloat = Annotated[float, Bounds(low=0, exclusive_low=True)]
NonNegativeFloat = Annotated[float, Bounds(low=0)]
Share = Annotated[float, Bounds(low=0, high=1)]
OpenShare = Annotated[float, Bounds(low=0, high=1, exclusive_high=True)]
