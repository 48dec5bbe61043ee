"""Weights in bf16 compute, masters in float32 remember: small updates are not lost, and resuming is bitwise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import run_tiny, weights_of, write_story

from fangcun.artifacts import list_checkpoints
from fangcun.config import ModelConfig, OptimizerConfig, resolve_model
from fangcun.model import Transformer, initialize
from fangcun.training import Compute, Ranks, build_optimizers, spread, train_step

CPU = torch.device("cpu")


def train(precision: str, *, rate: float, steps: int, micro_batch_size: int = 4) -> tuple[Transformer, list[float]]:
    model = Transformer(resolve_model(ModelConfig(n_layer=2, n_head=2, n_embd=32, block_size=16), vocab_size=70))
    initialize(model, 3)
    model.train()
    compute = Compute(CPU, precision, False, 1)  # type: ignore[arg-type]
    parallel = spread(model, compute, Ranks(), "ddp")
    optimizers = build_optimizers(model, OptimizerConfig(lr=rate))
    losses = []
    for step in range(steps):
        ids = torch.randint(0, 70, (4, 17), generator=torch.Generator().manual_seed(step % 3))
        result = train_step(
            parallel, list(model.parameters()), optimizers, ids[:, :-1], ids[:, 1:], rate=rate,
            micro_batch_size=micro_batch_size, max_norm=1.0, compute=compute,
        )  # fmt: skip
        losses.append(result.loss_sum / result.n_targets)
    return model, losses


def test_it_trains_as_mixed_precision_does() -> None:
    _, mixed = train("bf16-mixed", rate=3e-3, steps=30)
    _, true = train("bf16-true", rate=3e-3, steps=30)
    assert true[-1] < true[0] - 1
    assert true == pytest.approx(mixed, abs=0.05)


def test_updates_too_small_for_bf16_add_up_in_the_masters() -> None:
    start = Transformer(resolve_model(ModelConfig(n_layer=2, n_head=2, n_embd=32, block_size=16), vocab_size=70))
    initialize(start, 3)
    model, _ = train("bf16-true", rate=1e-7, steps=20)
    for (name, before), after in zip(start.named_parameters(), model.parameters(), strict=True):
        assert after.dtype is torch.float32
        if before.ndim == 2:
            assert not torch.equal(before, after), name
            assert torch.allclose(before, after, atol=1e-5), name


def gradients(precision: str, micro_batch_size: int) -> list[torch.Tensor]:
    """What one step hands to the optimizer."""
    model = Transformer(resolve_model(ModelConfig(n_layer=2, n_head=2, n_embd=32, block_size=16), vocab_size=70))
    initialize(model, 3)
    compute = Compute(CPU, precision, False, 1)  # type: ignore[arg-type]
    ids = torch.randint(0, 70, (16, 17), generator=torch.Generator().manual_seed(0))
    caught: list[torch.Tensor] = []

    def catch(loss: float, norm: float) -> bool:
        caught.extend(p.grad.clone() for p in model.parameters() if p.grad is not None)
        return False

    train_step(
        spread(model, compute, Ranks(), "ddp"), list(model.parameters()), [], ids[:, :-1], ids[:, 1:], rate=0.0,
        micro_batch_size=micro_batch_size, max_norm=None, compute=compute, approve=catch,
    )  # fmt: skip
    return caught


def test_many_micro_batches_lose_no_more_than_one() -> None:
    exact = gradients("32-true", 16)

    def error(found: list[torch.Tensor]) -> float:
        return sum(float((a - b).norm() ** 2) for a, b in zip(found, exact, strict=True)) ** 0.5

    assert all(g.dtype is torch.float32 for g in gradients("bf16-true", 1))
    # Sums in bf16 would add an error of their own with each of the sixteen.
    assert error(gradients("bf16-true", 1)) < 1.2 * error(gradients("bf16-true", 16))


def test_resume_is_bitwise_equal(tmp_path: Path) -> None:
    text = write_story(tmp_path)
    flags = ("--precision", "bf16-true", "--train.lr_decay_steps", "6")
    assert run_tiny(text, tmp_path / "whole", *flags) == 0
    assert run_tiny(text, tmp_path / "cut", *flags, "--train.max_steps", "4") == 0
    assert run_tiny(text, tmp_path / "cut", *flags) == 0
    ends = [list_checkpoints(tmp_path / name)[-1] for name in ("whole", "cut")]
    assert weights_of(ends[0]) == weights_of(ends[1])
