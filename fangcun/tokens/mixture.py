"""Samples of several sources in turn: which source, and which of its windows, is a function of the sample number.

In each period of 65,536 samples every source has a fixed number of places (its quota), spread as evenly as they go: its
j-th place of q lies where (j + 1/2) / q of the period is over. So the shares hold in every stretch of a run, not only on
average. Within a source the windows come in the order of `WindowOrder`, epoch after epoch.

Quotas may change at a sample: a new phase begins, and each source goes on where it was. What a run read before does
not depend on what is planned after.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fangcun.errors import FangcunError
from fangcun.tokens.order import WindowOrder, Windows

PERIOD = 1 << 16


@dataclass(frozen=True)
class Phase:
    """From a sample on, how many of every 65,536 samples each source has."""

    first_sample: int
    quotas: tuple[int, ...]

    @cached_property
    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """For each place of a period its source (int64) and how many places of that source lie before it (int64)."""
        sources = np.repeat(np.arange(len(self.quotas)), self.quotas)
        ranks = np.concatenate([np.arange(quota) for quota in self.quotas])
        when = (2 * ranks + 1) / np.array(self.quotas, np.float64)[sources]
        order = np.lexsort((sources, when))
        return sources[order], ranks[order]

    def counts(self, samples: int) -> np.ndarray:
        """How many of the first `samples` of this phase each source has, int64."""
        periods, rest = divmod(samples, PERIOD)
        return periods * np.array(self.quotas, np.int64) + np.bincount(
            self.places[0][:rest], minlength=len(self.quotas)
        )


def quotas(shares: Sequence[float], names: Sequence[str], at_most: Sequence[bool] | None = None) -> tuple[int, ...]:
    """Shares in any unit as quotas: whole numbers that add up to the period, by largest remainders.

    Those that are `at_most` what they say are rounded down, if to nothing. Raises FangcunError for another share that is
    above 0 and too small for one place.
    """
    largest = max(shares)
    scaled = np.array([share / largest for share in shares])
    total = scaled.sum()
    exact = scaled / total * PERIOD
    whole = np.floor(exact).astype(np.int64)
    bound = np.array(at_most if at_most is not None else [False] * len(exact))
    by_remainder = np.lexsort((np.arange(len(exact)), whole - exact, bound))
    free = max(1, int((~bound).sum()))
    rest = PERIOD - int(whole.sum())
    whole[by_remainder[:free]] += rest // free
    whole[by_remainder[: rest % free]] += 1
    for name, share, quota in zip(names, shares, whole.tolist(), strict=True):
        if share > 0 and quota == 0 and not bound[list(names).index(name)]:
            raise FangcunError(
                f"mix: the share of {name} is {share / largest / total:.2g}, below one sample in {PERIOD:,}. Give it more, or 0."
            )
    return tuple(whole.tolist())


class MixedOrder:
    """The windows of a stream whose sources lie one after the other, in the order of training. Safe to use from several threads.

    sources: name to (start, stop) in the stream. phases: the first begins at sample 0, each later one after the one before.
    Raises FangcunError for a source that is read and has no whole window.
    """

    def __init__(
        self, sources: Mapping[str, tuple[int, int]], block_size: int, seed: int, phases: Sequence[Phase]
    ) -> None:
        self.names, self.block_size, self.phases = tuple(sources), block_size, tuple(phases)
        self._starts = np.array([start for start, _ in sources.values()], np.int64)
        read = np.sum([phase.quotas for phase in phases], axis=0)
        self.orders: list[WindowOrder | None] = [
            _order(name, stop - start, block_size, seed) if count else None
            for (name, (start, stop)), count in zip(sources.items(), read, strict=True)
        ]
        """Of each source; None where it is not read."""
        self._firsts = np.array([phase.first_sample for phase in phases], np.int64)
        before = [np.zeros(len(self.names), np.int64)]
        for phase, following in itertools.pairwise(phases):
            before.append(before[-1] + phase.counts(following.first_sample - phase.first_sample))
        self._before = np.array(before)
        """Samples of each source before each phase."""

    def counts(self, samples: int) -> np.ndarray:
        """How many of the first `samples` each source has, int64."""
        phase = int(np.searchsorted(self._firsts, samples, side="right")) - 1
        return self._before[phase] + self.phases[phase].counts(samples - int(self._firsts[phase]))

    def epochs(self, samples: int) -> dict[str, float]:
        """How many times each source was read in the first `samples`."""
        return {
            name: int(count) * self.block_size / (order.n_tokens - 1) if order is not None else 0.0
            for name, order, count in zip(self.names, self.orders, self.counts(samples), strict=True)
        }

    def locate(self, first_sample: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Source and number within the source, int64, of samples first_sample … first_sample + count - 1."""
        samples = np.arange(first_sample, first_sample + count, dtype=np.int64)
        of_phase = np.searchsorted(self._firsts, samples, side="right") - 1
        sources, numbers = np.empty(count, np.int64), np.empty(count, np.int64)
        for phase in np.unique(of_phase).tolist():
            here = of_phase == phase
            periods, places = np.divmod(samples[here] - self._firsts[phase], PERIOD)
            of_place, ranks = self.phases[phase].places
            chosen = of_place[places]
            quota = np.array(self.phases[phase].quotas, np.int64)[chosen]
            sources[here] = chosen
            numbers[here] = self._before[phase][chosen] + periods * quota + ranks[places]
        return sources, numbers

    def windows(self, first_sample: int, count: int) -> Windows:
        """The windows of samples first_sample … first_sample + count - 1, in positions of the whole stream."""
        if first_sample < 0:
            raise IndexError(f"sample {first_sample}: samples count from 0")
        sources, numbers = self.locate(first_sample, count)
        columns = [np.empty(count, np.int64) for _ in Windows._fields]
        for source in np.unique(sources).tolist():
            order, here = self.orders[source], np.flatnonzero(sources == source)
            assert order is not None
            # The numbers of a source follow each other, but where a phase ends.
            for run in np.split(here, np.flatnonzero(np.diff(numbers[here]) != 1) + 1):
                found = order.windows(int(numbers[run[0]]), len(run))
                for column, values in zip(columns, found, strict=True):
                    column[run] = values + self._starts[source]
        return Windows(*columns)


def _order(name: str, n_tokens: int, block_size: int, seed: int) -> WindowOrder:
    if n_tokens < block_size + 1:
        raise FangcunError(
            f"mix: the source {name} has {n_tokens:,} training tokens, but a sample needs {block_size + 1:,}. Give it more "
            f"text, leave it out (0), or lower model.block_size (or train.max_seq_length)."
        )
    # Sources of one size are not read in step, and a source keeps its order whatever lies beside it.
    own = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    return WindowOrder(n_tokens, block_size, seed * (1 << 64) + own)
