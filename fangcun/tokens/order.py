"""Which window comes when: a function of (seed, sample number), with nothing stored.

Positions 0 … n_tokens - 1 are one stream. Every position but 0 is a *target*: predicted from those before it. In each
epoch the targets are cut into runs of `block_size`; the cut is shifted by an offset in [0, block_size) that depends on
seed and epoch, so the first and the last run may be shorter. A run is learnt in a window of block_size + 1 tokens. The
window of a short first run ends later, that of a short last run starts earlier, and the targets which they have in
common with their neighbour are masked: each target counts exactly once an epoch.

The order of an epoch's windows is a pseudo-random permutation that is computed: a Feistel network over pairs (left,
right) with left < rows, right < columns, rows * columns just above the number of windows; numbers that fall outside are
sent through again (cycle walking; Black and Rogaway 2002). Each of the ten rounds adds a 64-bit hash of one half,
keyed by seed, epoch and round, to the other half. The hash's mixing steps are those of SplitMix64 (Steele et al. 2014).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import NamedTuple

import numpy as np

from fangcun.errors import FangcunError

ROUNDS = 10
"""An even number. Below six, orders of few windows are visibly uneven."""
_WORD = (1 << 64) - 1
_STEP, _FACTOR_1, _FACTOR_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


class Window(NamedTuple):
    """Tokens start … stop - 1 of the stream. Positions of the stream, all inclusive but `stop`.

    The target in column c of the window is position start + 1 + c; those outside first_target … last_target are masked.
    """

    start: int
    first_target: int
    last_target: int
    stop: int

    @property
    def n_targets(self) -> int:
        """Targets that count."""
        return self.last_target - self.first_target + 1


class Windows(NamedTuple):
    """Several windows of block_size + 1 tokens as int64 arrays (count,), with the meanings of `Window`."""

    starts: np.ndarray
    first_targets: np.ndarray
    last_targets: np.ndarray


def _mix(word: int) -> int:
    """A bijection of 64-bit words in which each output bit depends on all input bits."""
    word = ((word ^ (word >> 30)) * _FACTOR_1) & _WORD
    word = ((word ^ (word >> 27)) * _FACTOR_2) & _WORD
    return word ^ (word >> 31)


def _key(*parts: int) -> int:
    """A 64-bit key of several numbers, in which their order counts."""
    key = 0
    for part in parts:
        while True:  # numbers of more than 64 bits are taken word by word
            key = _mix((key + _STEP + (part & _WORD)) & _WORD)
            part >>= 64
            if part in (0, -1):
                break
    return key


def _mix_array(words: np.ndarray) -> np.ndarray:
    """`_mix` on uint64 arrays (multiplication wraps around)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(_FACTOR_1)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(_FACTOR_2)
    return words ^ (words >> np.uint64(31))


class Permutation:
    """A keyed pseudo-random bijection of 0 … size - 1, in constant memory."""

    def __init__(self, size: int, *key: int) -> None:
        self.size = size
        rows = max(math.isqrt(size - 1) + 1, 1) if size > 1 else 1
        columns = -(-size // rows)
        self._rows, self._columns = np.uint64(rows), np.uint64(columns)
        self._keys = [np.uint64(_key(*key, number)) for number in range(ROUNDS)]

    def __call__(self, index: np.ndarray) -> np.ndarray:
        """The images of `index` (int64 in [0, size)), int64, same shape."""
        result = self._once(index.astype(np.uint64))
        outside = np.flatnonzero(result >= self.size)
        while len(outside):
            result[outside] = self._once(result[outside])
            outside = outside[result[outside] >= self.size]
        return result.astype(np.int64)

    def _once(self, words: np.ndarray) -> np.ndarray:
        left, right = np.divmod(words, self._columns)
        for first, second in zip(self._keys[::2], self._keys[1::2], strict=True):
            left = (left + _mix_array(right ^ first) % self._rows) % self._rows
            right = (right + _mix_array(left ^ second) % self._columns) % self._columns
        return left * self._columns + right


class WindowOrder:
    """The windows of a stream in the order of training. Sample numbers count from 0 over all epochs.

    n_tokens: length of the stream; at least block_size + 1. Safe to use from several threads.
    """

    def __init__(self, n_tokens: int, block_size: int, seed: int) -> None:
        if block_size < 1:
            raise FangcunError(f"block_size is {block_size}, expected at least 1.")
        if n_tokens < 2:
            raise FangcunError(
                f"The training split has {n_tokens:,} tokens, at least 2 are needed to predict one. Give more text (--text)."
            )
        if n_tokens < block_size + 1:
            raise FangcunError(
                f"The training split has {n_tokens:,} tokens, but a sample needs block_size + 1 = {block_size + 1:,}. "
                f"Set model.block_size (or train.max_seq_length) to {n_tokens - 1:,} or less, or give more text (--text)."
            )
        self.n_tokens, self.block_size, self.seed = n_tokens, block_size, seed
        self._ends: list[int] = []
        """Samples up to and with each epoch, as far as they were asked for."""
        self._latest: tuple[int, Permutation] | None = None

    def offset(self, epoch: int) -> int:
        """How far the cut is shifted: targets in the short first run, in [0, block_size)."""
        return _key(self.seed, epoch, ROUNDS) % self.block_size

    def samples_in_epoch(self, epoch: int) -> int:
        """Windows of an epoch. Two epochs may differ by one."""
        offset = self.offset(epoch)
        return (offset > 0) + -(-(self.n_tokens - 1 - offset) // self.block_size)

    def _ends_beyond(self, sample: int) -> list[int]:
        ends = self._ends
        if not ends or ends[-1] <= sample:
            ends = list(ends)  # extended aside and put in place at once: another thread may be reading
            wanted = len(ends) + 64
            while len(ends) < wanted or ends[-1] <= sample:
                ends.append((ends[-1] if ends else 0) + self.samples_in_epoch(len(ends)))
            self._ends = ends
        return ends

    def locate(self, sample: int) -> tuple[int, int]:
        """(epoch, place within it, from 0) of a sample number."""
        if sample < 0:
            raise IndexError(f"sample {sample}: samples count from 0")
        ends = self._ends_beyond(sample)
        epoch = bisect_right(ends, sample)
        return epoch, sample - (ends[epoch - 1] if epoch else 0)

    def window(self, sample: int) -> Window:
        """The window of a sample number."""
        starts, first, last = self.windows(sample, 1)
        start = int(starts[0])
        return Window(start, int(first[0]), int(last[0]), start + self.block_size + 1)

    def windows(self, first_sample: int, count: int) -> Windows:
        """The windows of samples first_sample … first_sample + count - 1, across epochs."""
        parts = []
        while count > 0:
            epoch, place = self.locate(first_sample)
            here = min(count, self.samples_in_epoch(epoch) - place)
            parts.append(self._epoch_windows(epoch, place, here))
            first_sample, count = first_sample + here, count - here
        if not parts:
            return Windows(*(np.empty(0, np.int64) for _ in range(3)))
        return (
            parts[0] if len(parts) == 1 else Windows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
        )

    def _epoch_windows(self, epoch: int, place: int, count: int) -> Windows:
        latest = self._latest
        if latest is None or latest[0] != epoch:
            latest = (epoch, Permutation(self.samples_in_epoch(epoch), self.seed, epoch))
            self._latest = latest
        runs = latest[1](np.arange(place, place + count, dtype=np.int64))
        return cut_windows(runs, self.n_tokens, self.block_size, self.offset(epoch))


def cut_windows(runs: np.ndarray, n_tokens: int, block_size: int, offset: int) -> Windows:
    """The windows of runs number `runs` (int64) when the targets are cut into runs of block_size at `offset`.

    Needs n_tokens > block_size.
    """
    shift = block_size - offset if offset else 0
    first = 1 + runs * block_size - shift  # below 1 for the short first run
    last = np.minimum(first + block_size - 1, n_tokens - 1)
    starts = np.clip(first - 1, 0, n_tokens - 1 - block_size)
    return Windows(starts, np.maximum(first, 1), last)
