"""A look into a model while it trains: the largest attention logit, whose growth announces instability.

Logits that grow without bound make the softmax one-hot and the training diverge (Wortsman et al. 2023, "Small-scale
proxies for large-scale Transformer training instabilities"). Computed apart from the training step, which never forms
the logits at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fangcun.model.attention import Attention
from fangcun.model.transformer import Transformer

_CHUNK_ELEMENTS = 1 << 24
"""Logits held at once (64 MiB in float32), whatever the batch and the context."""


def attention_logit_max(model: nn.Module, ids: Tensor, *, forward: Callable[[Tensor], Any] | None = None) -> float:
    """The largest q·k / sqrt(D) over causal pairs of all layers and heads, for one batch of ids (B, T).

    `model` is a Transformer or a module that holds one; `forward` runs it on `ids` (null: `model.hidden`; a sharded
    model has to be run through its wrapper). Queries and keys are those that the pass itself uses, in its own
    arithmetic; their products are taken in float32. NaN where the model computes NaN. Leaves no trace in the model.
    """
    if forward is None:
        assert isinstance(model, Transformer), "another module needs `forward`"
        forward = model.hidden
    largest: list[Tensor] = []

    def look(layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        assert isinstance(layer, Attention)
        turn = inputs[1] if len(inputs) > 1 else named.get("turn")
        documents = inputs[3] if len(inputs) > 3 else named.get("documents")
        query, key, _ = layer.project(inputs[0], turn)
        largest.append(causal_logit_max(query, key, None if documents is None else documents.numbers))

    hooks = [
        layer.register_forward_pre_hook(look, with_kwargs=True)
        for layer in model.modules()
        if isinstance(layer, Attention)
    ]
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            forward(ids)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return float(torch.stack(largest).max())


def causal_logit_max(query: Tensor, key: Tensor, numbers: Tensor | None = None) -> Tensor:
    """max of q·k / sqrt(D) over pairs with key position <= query position; query (B, H, T, D), key (B, G, T, D).

    numbers: (B, T), only pairs of the same number (of a document) count.
    """
    B, H, T, D = query.shape
    groups = key.shape[1]
    query = query.float().view(B, groups, H // groups, T, D)
    key = key.float()[:, :, None].transpose(-1, -2)
    rows = max(1, _CHUNK_ELEMENTS // (B * H * T))
    best = query.new_full((), float("-inf"))
    for start in range(0, T, rows):
        end = min(start + rows, T)
        logits = query[..., start:end, :] @ key[..., :end]
        later = torch.ones(end - start, end, dtype=torch.bool, device=query.device).triu(start + 1)
        if numbers is not None:
            later = (later | (numbers[:, start:end, None] != numbers[:, None, :end]))[:, None, None]
        best = torch.maximum(best, logits.masked_fill(later, float("-inf")).max())
    return best / D**0.5
