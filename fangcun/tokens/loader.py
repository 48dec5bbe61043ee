"""From windows to tensors: the batches of training, and fixed windows for evaluation.

Nothing here has state: a batch is a function of (split, block_size, seed, sample number), so a run resumes by knowing
one number, and ranks or threads fetch whichever samples of a step they are given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fangcun.tokens.format import TokenSplit
from fangcun.tokens.mixture import MixedOrder, Phase
from fangcun.tokens.order import Window, WindowOrder, Windows, cut_windows

if TYPE_CHECKING:
    import torch

MASKED = -100
"""Target that does not count (the ignore_index of torch's losses)."""


class Batches:
    """The training samples of a split, in order, for ever.

    As one stream, or with `phases` as a mixture of the split's sources.
    """

    def __init__(self, split: TokenSplit, block_size: int, seed: int, phases: Sequence[Phase] | None = None) -> None:
        self.split = split
        self.order: WindowOrder | MixedOrder = (
            WindowOrder(split.n_tokens, block_size, seed)
            if phases is None
            else MixedOrder(split.sources, block_size, seed, phases)
        )

    def fetch(self, first_sample: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Samples first_sample … first_sample + count - 1.

        Returns inputs (count, block_size) and targets (count, block_size), int64 on CPU; masked targets are -100.
        """
        return _fetch(self.split, self.order.windows(first_sample, count), self.order.block_size)

    def count_targets(self, first_sample: int, count: int) -> int:
        """Targets of these samples that are not masked, without reading them."""
        windows = self.order.windows(first_sample, count)
        return int((windows.last_targets - windows.first_targets + 1).sum())


def fixed_windows(
    split: TokenSplit, block_size: int, count: int | None = None, *, source: str | None = None
) -> list[Window]:
    """Windows for evaluation, the same every time, in the order of the stream; of one of its named sources, or of all.

    None: all of them, in which each token but the first is a target exactly once. A number: that many of these (or all,
    where there are fewer), evenly spread. A split of fewer than block_size + 1 tokens has one window, as long as it is;
    one of fewer than two tokens has none.
    """
    begin, stop = (0, split.n_tokens) if source is None else split.sources[source]
    n_tokens = stop - begin
    if n_tokens < 2:
        return []
    length = min(block_size, n_tokens - 1)
    total = -(-(n_tokens - 1) // length)
    chosen = range(total)
    if count is not None and count < total:
        chosen = [(2 * i + 1) * total // (2 * count) for i in range(count)]
    starts, first, last = cut_windows(np.array(chosen, dtype=np.int64), n_tokens, length, 0)
    bounds = zip((starts + begin).tolist(), (first + begin).tolist(), (last + begin).tolist(), strict=True)
    return [Window(start, first, last, start + length + 1) for start, first, last in bounds]


def fetch_windows(split: TokenSplit, windows: Sequence[Window]) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows of one common length T + 1: inputs (count, T) and targets (count, T), int64, masked targets -100."""
    lengths = {window.stop - window.start for window in windows}
    if len(lengths) != 1:
        raise ValueError(f"windows of one length expected, got lengths {sorted(lengths)}")
    columns = [np.array(column, dtype=np.int64) for column in zip(*windows, strict=True)]
    return _fetch(split, Windows(*columns[:3]), lengths.pop() - 1)


def _fetch(split: TokenSplit, windows: Windows, length: int) -> tuple[Any, Any]:
    import torch

    starts, first, last = windows
    ids = np.empty((len(starts), length + 1), dtype=np.int64)
    split.read_rows(starts.tolist(), ids)
    inputs, targets = ids[:, :-1].copy(), ids[:, 1:].copy()
    # Columns that count: from first - start - 1 up to last - start - 1. Nearly all windows count whole.
    before, behind = first - starts - 1, last - starts
    for row in np.flatnonzero(before):
        targets[row, : before[row]] = MASKED
    for row in np.flatnonzero(behind < length):
        targets[row, behind[row] :] = MASKED
    return torch.from_numpy(inputs), torch.from_numpy(targets)
