"""Keys and values of the positions already read, so that one more token costs one position of work."""

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

    def reserve(self, count: int) -> None:
        """Raise FangcunError unless `count` more positions fit."""
        if self.length + count > self.max_length:
            raise FangcunError(
                f"the cache has room for {self.max_length} positions, {self.length + count} were asked for. "
                "Make a KVCache with a larger max_length, or truncate this one."
            )

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store (B, groups, T, head) at `layer` behind what is there; return all its keys and values, in the type given.

        `length` stays until `advance`: every layer of one forward pass writes to the same place.
        """
        end = self.length + keys.shape[2]
        self.keys[layer][:, :, self.length : end] = keys
        self.values[layer][:, :, self.length : end] = values
        return self.keys[layer][:, :, :end].to(keys.dtype), self.values[layer][:, :, :end].to(values.dtype)

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
