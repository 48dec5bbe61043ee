"""How sure an accuracy is: the Wilson score interval, and whether it holds what guessing gives.

E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

Z_95 = 1.959963984540054
"""Two-sided 95 % of the normal distribution."""


def wilson(correct: int, total: int, z: float = Z_95) -> tuple[float, float]:
    """The interval (low, high) of a share of `correct` among `total` independent answers. Nothing asked: (0, 1)."""
    if not 0 <= correct <= total:
        raise ValueError(f"{correct} correct among {total}")
    if total == 0:
        return 0.0, 1.0
    share, square = correct / total, z * z / total
    center = share + square / 2
    half = z * math.sqrt(share * (1 - share) / total + square / (4 * total))
    low, high = (center - half) / (1 + square), (center + half) / (1 + square)
    return (0.0 if correct == 0 else low), (1.0 if correct == total else high)


@dataclass(frozen=True)
class Accuracy:
    """Right answers among questions, beside what guessing gives."""

    correct: int
    total: int
    chance: float
    """Mean over the questions of 1 / number of choices."""

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.correct / self.total if self.total else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, Wilson."""
        return wilson(self.correct, self.total)

    @property
    def verdict(self) -> str:
        """In words: `not above chance` where the interval holds what guessing gives, `above chance`, `below chance`."""
        low, high = self.interval
        if low > self.chance:
            return "above chance"
        return "below chance" if high < self.chance else "not above chance"

    def record(self) -> dict[str, object]:
        """As it stands in a JSON file."""
        low, high = self.interval
        return {
            "accuracy": self.accuracy,
            "correct": self.correct,
            "questions": self.total,
            "interval_95": [low, high],
            "chance": self.chance,
            "verdict": self.verdict,
        }
