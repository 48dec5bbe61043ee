"""Blocks that compute their activations twice give the same losses and gradients, and keep less."""

from __future__ import annotations

import pytest
import torch
from shapes import random_ids, random_model, small_config
from torch import Tensor

from fangcun.model import KVCache, Transformer, head_loss_sum, recompute_blocks


def loss_and_gradients(model: Transformer, ids: Tensor, seed: int = 0) -> tuple[Tensor, tuple[Tensor, ...]]:
    torch.manual_seed(seed)
    loss = head_loss_sum(model.hidden(ids), model.head_weight, ids.roll(-1, 1))
    return loss.detach(), torch.autograd.grad(loss, list(model.parameters()))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("shape", [{"tie_embeddings": False}, {"tie_embeddings": False, "parallel_residual": True, "exportable": False}])  # fmt: skip
def test_recomputed_equals_kept(dropout: float, shape: dict) -> None:
    config = small_config(dropout=dropout, attention_dropout=dropout, **shape)
    ids = random_ids(config)
    model = random_model(config).train()
    names = list(model.state_dict())
    kept = loss_and_gradients(model, ids)
    recompute_blocks(model)
    assert list(model.state_dict()) == names
    again = loss_and_gradients(model, ids)
    assert torch.equal(kept[0], again[0])
    for a, b in zip(kept[1], again[1], strict=True):
        assert torch.equal(a, b)


def test_less_is_kept_for_the_backward_pass() -> None:
    config = small_config(n_layer=4)
    ids, sizes = random_ids(config), []
    model = random_model(config).train()
    for _ in range(2):
        kept: dict[int, int] = {}

        def note(tensor: torch.Tensor, kept: dict[int, int] = kept) -> torch.Tensor:
            kept[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            head_loss_sum(model.hidden(ids), model.head_weight, ids)
        sizes.append(sum(kept.values()))
        recompute_blocks(model)
    assert sizes[1] < 0.5 * sizes[0]


def test_generation_with_a_cache_is_untouched() -> None:
    config = small_config()
    model, ids = random_model(config), random_ids(config)
    wanted = model(ids)
    recompute_blocks(model)
    with torch.no_grad():
        cache = KVCache(config, batch_size=len(ids), max_length=24)
        got = torch.cat([model(ids[:, :5], cache), model(ids[:, 5:], cache)], dim=1)
    torch.testing.assert_close(got, wanted)
