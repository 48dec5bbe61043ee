"""The split of a global batch into micro-batches changes nothing but rounding, masked targets included."""

from __future__ import annotations

import pytest
import torch

from fangcun.config import ModelConfig, OptimizerConfig, resolve_model
from fangcun.model import Transformer, initialize
from fangcun.training import Compute, Objective, Parallel, build_optimizers, train_step


def one_step(
    micro_batch_size: int, *, dropout: float = 0.0, seed: int | None = None
) -> tuple[Transformer, float, float]:
    shape = ModelConfig(n_layer=2, n_head=2, n_embd=32, block_size=16, dropout=dropout)
    model = Transformer(resolve_model(shape, vocab_size=70))
    initialize(model, 3)
    model.train()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 70, (8, 17), generator=generator)
    targets = ids[:, 1:].clone()
    targets[0, :13] = -100  # one window counts almost nothing: a mean of means would overrate it
    targets[5] = -100
    result = train_step(
        Parallel(Objective(model)),
        list(model.parameters()),
        build_optimizers(model, OptimizerConfig(lr=1e-2, eps=1e-3)),
        ids[:, :-1],
        targets,
        rate=1e-2,
        micro_batch_size=micro_batch_size,
        max_norm=1.0,
        compute=Compute(torch.device("cpu"), "32-true", False, 1),
        dropout_seed=seed,
    )
    assert result.n_targets == 8 * 16 - 13 - 16
    return model, float(result.loss_sum), float(result.grad_norm)


@pytest.mark.parametrize("micro_batch_size", [1, 2, 4])
def test_accumulated_step_equals_whole_step(micro_batch_size: int) -> None:
    whole, loss, norm = one_step(8)
    parts, loss_parts, norm_parts = one_step(micro_batch_size)
    assert loss_parts == pytest.approx(loss, rel=1e-6)
    assert norm_parts == pytest.approx(norm, rel=1e-5)
    for (name, a), (_, b) in zip(whole.named_parameters(), parts.named_parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=name)


def test_dropout_is_a_function_of_its_seed_alone() -> None:
    torch.manual_seed(1)
    a, loss_a, _ = one_step(4, dropout=0.3, seed=11)
    torch.manual_seed(2)
    b, loss_b, _ = one_step(4, dropout=0.3, seed=11)
    _, loss_c, _ = one_step(4, dropout=0.3, seed=12)
    assert loss_a == loss_b != loss_c
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
