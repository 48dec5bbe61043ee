"""AdamW with 8-bit moments: absent, the package is named; present, it trains, and its state survives as plain tensors."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from test_optimizer_groups import small_model, take_steps

from fangcun.config import OptimizerConfig
from fangcun.errors import FangcunError
from fangcun.training.optimizer_state import optimizer_tensors, restore_optimizers
from fangcun.training.optimizers import build_optimizers, set_learning_rate


def test_without_torchao_the_package_is_named(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FangcunError, match=r"adamw8bit needs the package torchao.*torchao"):
        build_optimizers(small_model(), OptimizerConfig(name="adamw8bit"))


@pytest.mark.slow  # torch compiles its step
def test_state_survives_the_round_trip_bitwise() -> None:
    pytest.importorskip("torchao")

    def take(model: torch.nn.Module, optimizers: list, seeds: range) -> None:
        set_learning_rate(optimizers, 1e-3)
        take_steps(model, optimizers, seeds)

    shape = {"n_layer": 1, "n_embd": 64}  # matrices of 4,096 entries and more are quantised
    model, config = small_model(**shape), OptimizerConfig(name="adamw8bit")
    optimizers = build_optimizers(model, config)
    take(model, optimizers, range(2))
    saved = {k: v.clone() for k, v in optimizer_tensors(model, optimizers).items()}
    assert all(type(tensor) is torch.Tensor for tensor in saved.values())
    assert saved["blocks.0.mlp.up.weight::exp_avg.codes"].dtype == torch.uint8
    other = small_model(**shape)
    other.load_state_dict({k: v.clone() for k, v in model.state_dict().items()})
    restored = build_optimizers(other, config)
    restore_optimizers(other, restored, saved)
    take(model, optimizers, range(2, 4))
    take(other, restored, range(2, 4))
    for (name, a), (_, b) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(a, b), name
