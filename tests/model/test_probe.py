"""The probe's figure is the plain one: softmax inputs of every layer, computed pair by pair from the model's parts."""

from __future__ import annotations

import math

import pytest
import torch
from shapes import FAMILIES, random_config, random_ids, random_model, small_config

from fangcun.model import Transformer, attention_logit_max
from fangcun.model.attention import Attention, rotate
from fangcun.model.probe import causal_logit_max


def plain_logit_max(model: Transformer, ids: torch.Tensor) -> float:
    """Every pair by a loop over positions, heads and layers, from the inputs that the layers got."""
    inputs: list[tuple[Attention, torch.Tensor]] = []
    hooks = [
        block.attention.register_forward_hook(lambda layer, given, _: inputs.append((layer, given[0])))
        for block in model.blocks
    ]
    with torch.no_grad():
        model.hidden(ids)
        for hook in hooks:
            hook.remove()
        best = -math.inf
        for layer, x in inputs:
            H, G, D = layer.heads, layer.groups, layer.head_size
            rows = layer.qkv(x).unflatten(-1, (H + 2 * G, D))
            query, key = rows[:, :, :H], rows[:, :, H : H + G]
            if layer.query_norm is not None and layer.key_norm is not None:
                query, key = layer.query_norm(query), layer.key_norm(key)
            if model.rotary is not None:
                turn = model.rotary(0, ids.shape[1])
                query, key = rotate(query, turn), rotate(key, turn)
            for head in range(H):
                for t in range(ids.shape[1]):
                    products = (query[:, t, head, None] * key[:, : t + 1, head // (H // G)]).sum(-1)
                    best = max(best, float(products.max()) / math.sqrt(D))
    return best


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_largest_logit_is_that_of_the_plain_computation(family: str, seed: int) -> None:
    config = random_config(family, seed)
    model, ids = random_model(config, seed), random_ids(config, seed=seed)
    assert attention_logit_max(model, ids) == pytest.approx(plain_logit_max(model, ids), rel=1e-5)


def test_chunks_of_queries_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key = torch.randn(2, 4, 37, 8), torch.randn(2, 2, 37, 8)
    whole = causal_logit_max(query, key)
    monkeypatch.setattr("fangcun.model.probe._CHUNK_ELEMENTS", 2 * 4 * 37 * 5)
    assert torch.equal(causal_logit_max(query, key), whole)


def test_pairs_that_look_ahead_do_not_count() -> None:
    query, key = torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 3, 4)
    query[..., 0, :], key[..., 2, :] = 10, 10  # only position 0 would like position 2, which comes later
    assert causal_logit_max(query, key) == 0


def test_looking_leaves_the_model_as_it_was() -> None:
    config = small_config(dropout=0.5, attention_dropout=0.5)
    model = random_model(config).train()
    ids = random_ids(config)
    before = torch.random.get_rng_state()
    first, second = attention_logit_max(model, ids), attention_logit_max(model, ids)
    assert first == second
    assert model.training and all(block.training for block in model.blocks)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_wrapper_is_looked_into_through_its_own_forward() -> None:
    config = small_config()
    model, ids = random_model(config), random_ids(config)
    wrapper = torch.nn.Sequential(model)
    assert attention_logit_max(wrapper, ids, forward=wrapper) == attention_logit_max(model, ids)


def test_a_model_that_computes_nan_says_so() -> None:
    config = small_config()
    model = random_model(config)
    with torch.no_grad():
        model.blocks[1].attention.qkv.weight[0, 0] = math.nan
    assert math.isnan(attention_logit_max(model, random_ids(config)))
