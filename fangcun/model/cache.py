"""Keys and values of the positions already read, so that one more token costs one position of work.

`KVCache` is for sequences that go in step: all have the same length. `SlotCache` has a row for each of several sequences
of different lengths; `SlotCache.row` reads one of them on, `SlotCache.step` all of the first rows by one position.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fangcun.config import ModelConfig
from fangcun.errors import FangcunError


class KVCache:
    """Preallocated keys and values: a pair of (batch_size, n_query_groups, max_length, head_size) tensors a layer.

    All sequences of the batch have the same length. `length` positions are filled.

    Args:
        config: resolved.
        batch_size: sequences.
        max_length: positions there is room for.
        dtype: of keys and values.
        device: of keys and values.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch_size: int,
        max_length: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        assert config.n_query_groups is not None and config.head_size is not None, "resolve_model comes first"
        shape = (batch_size, config.n_query_groups, max_length, config.head_size)
        self.max_length = max_length
        self.length = 0
        self.keys = [torch.empty(shape, dtype=dtype, device=device) for _ in range(config.n_layer)]
        self.values = [torch.empty(shape, dtype=dtype, device=device) for _ in range(config.n_layer)]
        self.ids = None
        if config.ngram_rows is not None:  # the embedding of an id looks at those before it
            self.ids = torch.empty(batch_size, max_length, dtype=torch.int64, device=device)
        self._mask: tuple[tuple[int, int], Tensor] | None = None

    def reserve(self, count: int) -> None:
        """Raise FangcunError unless `count` more positions fit."""
        if self.length + count > self.max_length:
            raise FangcunError(
                f"the cache has room for {self.max_length} positions, {self.length + count} were asked for. "
                "Make a KVCache with a larger max_length, or truncate this one."
            )

    @property
    def positions(self) -> Tensor | None:
        """Positions (B, 1) of the next ids where they differ between the sequences; None: all continue at `length`."""
        return None

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store (B, groups, T, head) at `layer` behind what is there; return all its keys and values, in the type given.

        `length` stays until `advance`: every layer of one forward pass writes to the same place.
        """
        end = self.length + keys.shape[2]
        self.keys[layer][:, :, self.length : end] = keys
        self.values[layer][:, :, self.length : end] = values
        return self.keys[layer][:, :, :end].to(keys.dtype), self.values[layer][:, :, :end].to(values.dtype)

    def mask(self, count: int, device: torch.device) -> Tensor | None:
        """Which positions (broadcast to B, 1, count, length + count) `count` further queries see; None: plainly causal.

        One query sees all. Made once for all layers of a forward pass.
        """
        if not self.length or count == 1:
            return None
        asked = (self.length, count)
        if self._mask is None or self._mask[0] != asked:
            seen = torch.ones(count, self.length + count, dtype=torch.bool, device=device).tril(self.length)
            self._mask = (asked, seen)
        return self._mask[1]

    def remember(self, ids: Tensor) -> Tensor | None:
        """Store (B, T) ids behind those that are there, and return the earlier ones; None for a model that needs none."""
        if self.ids is None:
            return None
        self.ids[:, self.length : self.length + ids.shape[1]] = ids
        return self.ids[:, : self.length]

    def advance(self, count: int) -> None:
        """`count` positions were appended at every layer."""
        self.length += count

    def truncate(self, length: int) -> None:
        """Forget all but the first `length` positions."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate a cache of {self.length} positions to {length}")
        self.length = length


class _Row(KVCache):
    """One row of a SlotCache, in the same memory."""

    def __init__(self, slots: SlotCache, row: int) -> None:
        self.max_length, self.length = slots.max_length, slots.lengths[row]
        self.keys = [k[row : row + 1] for k in slots.keys]
        self.values = [v[row : row + 1] for v in slots.values]
        self.ids = None if slots.ids is None else slots.ids[row : row + 1]
        self._mask = None
        self._slots, self._row = slots, row

    def advance(self, count: int) -> None:
        super().advance(count)
        self._slots.lengths[self._row] = self.length


class _Step(KVCache):
    """The first rows of a SlotCache, each to be read on by one position."""

    def __init__(self, slots: SlotCache, count: int) -> None:
        lengths = slots.lengths[:count]
        self.max_length, self.length = slots.max_length, max(lengths)
        self.keys = [k[:count] for k in slots.keys]
        self.values = [v[:count] for v in slots.values]
        self.ids = None if slots.ids is None else slots.ids[:count]
        self._slots, self._count = slots, count
        device = slots.keys[0].device
        self._lengths = torch.tensor(lengths, device=device)
        self._rows = torch.arange(count, device=device)
        self._seen = None
        if min(lengths) < self.length:
            self._seen = torch.arange(self.length + 1, device=device) <= self._lengths[:, None]
            self._seen = self._seen[:, None, None]

    @property
    def positions(self) -> Tensor | None:
        return None if self._seen is None else self._lengths[:, None]

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        if self._seen is None:
            return super().append(layer, keys, values)
        self.keys[layer][self._rows, :, self._lengths] = keys[:, :, 0]
        self.values[layer][self._rows, :, self._lengths] = values[:, :, 0]
        end = self.length + 1
        return self.keys[layer][:, :, :end].to(keys.dtype), self.values[layer][:, :, :end].to(values.dtype)

    def mask(self, count: int, device: torch.device) -> Tensor | None:
        assert count == 1, "a step reads one position a row"
        return self._seen

    def remember(self, ids: Tensor) -> Tensor | None:
        if self.ids is None:
            return None
        self.ids[self._rows, self._lengths] = ids[:, 0]
        # The ids before each row's own end, moved so that all end at the last column; what is before the first is masked out
        # by position in the embedding.
        back = torch.arange(self.length, 0, -1, device=ids.device)
        places = self._lengths[:, None] - back
        known = self.ids.gather(1, places.clamp_min(0))
        return torch.where(places >= 0, known, self._slots.nothing)

    def advance(self, count: int) -> None:
        for row in range(self._count):
            self._slots.lengths[row] += count


class SlotCache:
    """Keys and values of `rows` sequences of different lengths (`lengths`), each up to `max_length` positions."""

    def __init__(
        self, config: ModelConfig, rows: int, max_length: int, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        whole = KVCache(config, rows, max_length, dtype, device)
        self.keys, self.values, self.ids = whole.keys, whole.values, whole.ids
        if self.ids is not None:
            self.ids.zero_()
        for tensor in (*self.keys, *self.values):
            tensor.zero_()  # what lies behind a row's end is masked, but 0 x NaN would still be NaN
        self.max_length = max_length
        self.nothing = config.padded_vocab_size or 0
        self.lengths = [0] * rows

    def row(self, row: int) -> KVCache:
        """One sequence by itself, to read it on; what it reads is in this cache."""
        return _Row(self, row)

    def step(self, count: int) -> KVCache:
        """The first `count` sequences together, to read each on by one position."""
        return _Step(self, count)

    def copy(self, source: int, target: int, length: int) -> None:
        """The first `length` positions of row `source` become those of row `target`, which has no others."""
        if source != target and length:
            for tensor in (*self.keys, *self.values):
                tensor[target, :, :length] = tensor[source, :, :length]
            if self.ids is not None:
                self.ids[target, :length] = self.ids[source, :length]
        self.lengths[target] = length

    def swap(self, one: int, other: int) -> None:
        """Rows `one` and `other` change places."""
        if one == other:
            return
        end = max(self.lengths[one], self.lengths[other])
        for tensor in (*self.keys, *self.values):
            kept = tensor[one, :, :end].clone()
            tensor[one, :, :end] = tensor[other, :, :end]
            tensor[other, :, :end] = kept
        if self.ids is not None:
            self.ids[[one, other]] = self.ids[[other, one]]
        self.lengths[one], self.lengths[other] = self.lengths[other], self.lengths[one]
