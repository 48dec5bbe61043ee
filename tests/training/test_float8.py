"""Float8 products (emulated here) train as bf16 ones do, and leave names, weights and checkpoints as they are."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from tiny import run_tiny, write_story

from fangcun.config import ModelConfig, OptimizerConfig, resolve_model
from fangcun.errors import FangcunError
from fangcun.model import Transformer, initialize, load_model, save_model
from fangcun.training import Compute, Ranks, build_optimizers, spread, train_step
from fangcun.training.float8 import check_float8, use_float8

CPU = torch.device("cpu")
pytest.importorskip("torchao")


def small_model(**changes: int) -> Transformer:
    shape = {"n_layer": 2, "n_head": 2, "n_embd": 32, "intermediate_size": 64, "block_size": 16} | changes
    model = Transformer(resolve_model(ModelConfig(**shape), vocab_size=70))
    initialize(model, 3)
    return model.train()


def train(model: Transformer, precision: str) -> list[float]:
    compute = Compute(CPU, precision, False, 1)  # type: ignore[arg-type]
    parallel = spread(model, compute, Ranks(), "ddp")
    optimizers = build_optimizers(model, OptimizerConfig(lr=3e-3))
    losses = []
    for step in range(25):
        ids = torch.randint(0, 70, (4, 17), generator=torch.Generator().manual_seed(step % 3))
        result = train_step(
            parallel, list(model.parameters()), optimizers, ids[:, :-1], ids[:, 1:], rate=3e-3, micro_batch_size=2,
            max_norm=1.0, compute=compute,
        )  # fmt: skip
        losses.append(result.loss_sum / result.n_targets)
    return losses


def test_it_trains_as_bf16_does_but_not_with_the_same_bits() -> None:
    plain, model = train(small_model(), "bf16-mixed"), small_model()
    assert use_float8(model, emulate=True) == 2 * 5  # qkv, output, gate, up, down
    losses = train(model, "fp8-mixed")
    assert losses[-1] < losses[0] - 1
    assert losses == pytest.approx(plain, abs=0.15)
    assert losses != plain


def test_names_weights_and_the_head_stay(tmp_path: Path) -> None:
    model, plain = small_model(), small_model()
    use_float8(model, emulate=True)
    assert {n: p.dtype for n, p in model.named_parameters()} == {n: p.dtype for n, p in plain.named_parameters()}
    assert type(model.embedding) is type(plain.embedding)
    save_model(model, tmp_path / "model")
    again = load_model(tmp_path / "model")
    for (name, a), (other, b) in zip(plain.state_dict().items(), again.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(a, b)


def test_layers_that_the_hardware_cannot_multiply_stay_as_they_are() -> None:
    assert use_float8(small_model(intermediate_size=60), emulate=True) == 2 * 2
    with pytest.raises(FangcunError, match="multiples of 16"):
        use_float8(small_model(n_embd=36, n_head=1, intermediate_size=60), emulate=True)


def test_a_device_without_float8_is_refused_with_what_to_do(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(FangcunError, match=r"fp8-mixed needs an NVIDIA GPU.*bf16-mixed"):
        run_tiny(write_story(tmp_path), tmp_path / "run", "--precision", "fp8-mixed")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    with pytest.raises(FangcunError, match=r"this GPU has 8\.0.*bf16-mixed"):
        check_float8(torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FangcunError, match="pip install torchao"):
        check_float8(torch.device("cuda"))
