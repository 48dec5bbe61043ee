"""Each parameter is moved by exactly one optimizer group; norms, biases and embeddings are not decayed."""

from __future__ import annotations

import pytest
import torch

from fangcun.config import ModelConfig, OptimizerConfig, resolve_model
from fangcun.errors import FangcunError
from fangcun.model import Transformer, cross_entropy_sum, initialize
from fangcun.training.optimizer_state import optimizer_tensors, restore_optimizers
from fangcun.training.optimizers import (
    assert_each_parameter_once,
    build_optimizers,
)


def small_model(**changes) -> Transformer:
    shape = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 8} | changes
    model = Transformer(resolve_model(ModelConfig(**shape), vocab_size=50))
    initialize(model, 1)
    return model


def take_steps(model: Transformer, optimizers: list[torch.optim.Optimizer], seeds: range) -> None:
    for seed in seeds:
        ids = torch.randint(0, 50, (2, 9), generator=torch.Generator().manual_seed(seed))
        loss, count = cross_entropy_sum(model(ids[:, :-1]), ids[:, 1:])
        (loss / count).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()


@pytest.mark.parametrize("tie", [True, False])
def test_only_matrices_decay(tie: bool) -> None:
    model = small_model(tie_embeddings=tie, attention_bias=True)
    (optimizer,) = build_optimizers(model, OptimizerConfig(weight_decay=0.1))
    names = {id(p): n for n, p in model.named_parameters()}
    decayed = {names[id(p)] for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]}
    others = {names[id(p)] for g in optimizer.param_groups if not g["weight_decay"] for p in g["params"]}
    assert decayed | others == set(names.values())
    shapes = dict(model.named_parameters())
    assert all(shapes[n].ndim == 2 and not n.startswith(("embedding", "positions")) for n in decayed)
    assert any(shapes[n].ndim == 2 for n in others)  # embedding
    assert all(n in others for n, p in shapes.items() if p.ndim == 1)


def test_a_parameter_forgotten_or_taken_twice_is_named() -> None:
    model = small_model()
    parameters = list(model.parameters())
    name = next(n for n, _ in model.named_parameters())
    with pytest.raises(AssertionError, match=name):
        assert_each_parameter_once(model, [torch.optim.SGD(parameters[1:], lr=0.1)])
    with pytest.raises(AssertionError, match=name):
        assert_each_parameter_once(model, [torch.optim.SGD(parameters), torch.optim.SGD(parameters[:1])])


def test_two_optimizers_may_share_the_parameters() -> None:
    model = small_model()
    parameters = list(model.parameters())
    assert_each_parameter_once(model, [torch.optim.SGD(parameters[:2]), torch.optim.SGD(parameters[2:])])


def test_state_survives_the_round_trip_bitwise() -> None:
    model = small_model()
    optimizers = build_optimizers(model, OptimizerConfig())
    take_steps(model, optimizers, range(3))
    saved = {k: v.clone() for k, v in optimizer_tensors(model, optimizers).items()}
    weights = {k: v.clone() for k, v in model.state_dict().items()}

    other = small_model()
    other.load_state_dict(weights)
    restored = build_optimizers(other, OptimizerConfig())
    restore_optimizers(other, restored, saved)
    take_steps(model, optimizers, range(3, 6))
    take_steps(other, restored, range(3, 6))
    for (name, a), (_, b) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_state_of_another_model_is_refused() -> None:
    model, other = small_model(), small_model(n_layer=1)
    optimizers = build_optimizers(model, OptimizerConfig())
    take_steps(model, optimizers, range(1))
    state = optimizer_tensors(model, optimizers)
    with pytest.raises(FangcunError, match="lacks"):
        restore_optimizers(other, build_optimizers(other, OptimizerConfig()), state)
    with pytest.raises(FangcunError, match="no optimizer state"):
        restore_optimizers(model, build_optimizers(model, OptimizerConfig()), {})
