"""Does a model run in circles: distinct n-grams, the longest loop, and how long its free samples are. Strings only.

distinct-n: different n-grams of characters over all of them (Li et al. 2016, A diversity-promoting objective function).
A loop is a unit that stands several times in a row; where one begins small models rarely leave it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LOOP_REPEATS = 3
"""A unit that stands fewer times in a row is no loop: refrains and stresses repeat twice."""

LOOP_CHARACTERS = 16
"""A loop is at least this long altogether: 哈哈哈 and …… are none."""

LONGEST_PERIOD = 256
"""Characters of the longest unit that is looked for."""


@dataclass(frozen=True)
class Loop:
    """A unit repeated in a row."""

    start: int
    """Character at which it begins."""
    period: int
    """Characters of the unit."""
    length: int
    """Characters altogether, an unfinished last unit included."""


def longest_loop(text: str) -> Loop | None:
    """The longest stretch that repeats a unit LOOP_REPEATS times or more over LOOP_CHARACTERS or more; None: there is none.

    Of equal ones the shortest unit, then the first.
    """
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    best: Loop | None = None
    for period in range(1, min(LONGEST_PERIOD, len(points) // LOOP_REPEATS) + 1):
        same = points[period:] == points[:-period]
        changes = np.flatnonzero(np.diff(np.concatenate(([0], same.view(np.int8), [0]))))
        starts, ends = changes[::2], changes[1::2]
        if not len(starts):
            continue
        longest = int((ends - starts).argmax())
        length = int(ends[longest] - starts[longest]) + period
        if length >= max(LOOP_REPEATS * period, LOOP_CHARACTERS) and (best is None or length > best.length):
            best = Loop(int(starts[longest]), period, length)
    return best


def distinct(texts: Sequence[str], n: int) -> float | None:
    """Different n-grams of characters over all n-grams of the texts together; None where there is none."""
    seen: set[str] = set()
    total = 0
    for text in texts:
        grams = [text[i : i + n] for i in range(len(text) - n + 1)]
        total += len(grams)
        seen.update(grams)
    return len(seen) / total if total else None


def describe_samples(texts: Sequence[str], ended: Sequence[bool] | None = None) -> dict[str, Any]:
    """The figures of free samples, as they stand in metrics.jsonl.

    `distinct_1` … `distinct_4` over all samples (they fall with the amount of text: compare like with like);
    `longest_loop_characters`; `loop_share`, of samples that loop; `mean_characters`; `ended_share`, of those that ended by
    themselves, where `ended` says which did.
    """
    loops = [longest_loop(text) for text in texts]
    record: dict[str, Any] = {"samples": len(texts)}
    record |= {f"distinct_{n}": distinct(texts, n) for n in (1, 2, 3, 4)}
    record["longest_loop_characters"] = max((loop.length for loop in loops if loop), default=0)
    record["loop_share"] = sum(loop is not None for loop in loops) / len(texts) if texts else None
    record["mean_characters"] = sum(map(len, texts)) / len(texts) if texts else None
    if ended is not None:
        record["ended_share"] = sum(ended) / len(texts) if texts else None
    return record
