"""A beginning that many rows share is read once: its keys and values stand before each row's own.

The examples of a few-shot exam are the same for every question of a subject and five times as long as the question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from fangcun.generation.engine import evaluation_mode
from fangcun.model import Documents, Transformer

SHORTEST = 32
"""A prefix below this many tokens is not worth a forward pass of its own and smaller batches."""


@dataclass(frozen=True)
class Prefix:
    """Ids read once: keys and values (G, P, D) of each layer, normed and turned as the layer uses them."""

    keys: list[Tensor]
    values: list[Tensor]

    @property
    def length(self) -> int:
        """Positions."""
        return self.keys[0].shape[1]


@dataclass(frozen=True)
class _Recording(Documents):
    """Reads as usual and keeps what each layer reads."""

    prefix: Prefix = field(default_factory=lambda: Prefix([], []))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
        self.prefix.keys.append(key[0].contiguous())
        self.prefix.values.append(value[0].contiguous())
        return super().attend(query, key, value, dropout)


@dataclass(frozen=True)
class AfterPrefix(Documents):
    """Rows behind a prefix. One object serves one forward pass, whose layers call `attend` in order."""

    prefix: Prefix
    _layers: list[int] = field(default_factory=list)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
        layer = len(self._layers)
        self._layers.append(layer)
        early_keys, early_values = self.prefix.keys[layer], self.prefix.values[layer]
        B, H, T, D = query.shape
        G, P = key.shape[1], early_keys.shape[1]
        share = H // G
        # Against the prefix all rows are one product a group; (B, G, share, T, D) -> (G, B share T, D).
        grouped = query.reshape(B, G, share, T, D) * D**-0.5
        rows = grouped.transpose(0, 1).reshape(G, -1, D)
        early = (rows @ early_keys.mT).view(G, B, share * T, P).transpose(0, 1)
        own = grouped.reshape(B, G, share * T, D) @ key.mT
        own = own.masked_fill(~self.mask.repeat(1, 1, share, 1), float("-inf"))
        weights = F.softmax(torch.cat((early, own), dim=-1).float(), dim=-1).to(value.dtype)
        early_part = weights[..., :P].transpose(0, 1).reshape(G, -1, P) @ early_values
        mixed = early_part.view(G, B, share * T, D).transpose(0, 1) + weights[..., P:] @ value
        return mixed.reshape(B, H, T, D)


def read_prefix(model: Transformer, ids: Sequence[int]) -> Prefix:
    """Read `ids` from position 0."""
    device = model.head_weight.device
    x = torch.tensor([list(ids)], device=device)
    one = torch.ones(1, len(ids), len(ids), dtype=torch.bool, device=device).tril()
    recording = _Recording(torch.zeros_like(x), one.sum(-1) - 1, one[:, None])
    with torch.inference_mode(), evaluation_mode(model), torch.autocast(device.type, enabled=False):
        model.hidden(x, documents=recording)
    return recording.prefix


def shared_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Ids that both begin with."""
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count


def cluster(texts: Sequence[Sequence[int]], shortest: int = SHORTEST) -> list[tuple[int, list[int]]]:
    """Texts that are worth reading behind a common prefix: (its length, their numbers); length 0: each for itself.

    Neighbours in lexicographic order are taken together for as long as that saves more ids than it loses. At least one
    id of each text stays its own, and a prefix that is shorter than `shortest` or than half of what follows it is none.
    """
    order = sorted(range(len(texts)), key=lambda i: tuple(texts[i]))
    alone: list[int] = []
    clusters: list[tuple[int, list[int]]] = []

    def close(members: list[int], common: int) -> None:
        rest = sum(len(texts[i]) - common for i in members) / len(members)
        if len(members) > 1 and common >= shortest and common >= rest / 2:
            clusters.append((common, sorted(members)))
        else:
            alone.extend(members)

    members, common = order[:1], 0
    for i in order[1:]:
        last = members[-1]
        both = min(shared_length(texts[last], texts[i]), len(texts[last]) - 1, len(texts[i]) - 1)
        joined = both if len(members) == 1 else min(common, both)
        if joined * len(members) >= common * (len(members) - 1) and joined >= shortest:
            members, common = [*members, i], joined
        else:
            close(members, common)
            members, common = [i], 0
    if members:
        close(members, common)
    return ([(0, sorted(alone))] if alone else []) + clusters
