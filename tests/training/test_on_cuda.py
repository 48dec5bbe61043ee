"""What only a GPU can show. bench/gpu.sh runs these; without a GPU they are skipped."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny import run_tiny, weights_of, write_story

from fangcun.artifacts import list_checkpoints
from fangcun.config import ModelConfig, OptimizerConfig, resolve_model
from fangcun.model import Transformer, initialize
from fangcun.model.loss import head_loss_sum, plain_head_loss_sum
from fangcun.training import Compute, Objective, Parallel, build_optimizers, read_steps, train_step
from fangcun.training.prefetch import Prefetch

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return write_story(tmp_path)


@pytest.fixture
def any_algorithm() -> Iterator[None]:
    """A run with `deterministic` leaves torch so; the other tests shall not have it."""
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 2e-5), (torch.bfloat16, 3e-2)], ids=["fp32", "bf16"])
def test_the_chunked_loss_is_the_plain_one(dtype: torch.dtype, close: float) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(500, 64, generator=generator).to("cuda", dtype).requires_grad_()
    weight = torch.randn(3000, 64, generator=generator).to("cuda", dtype).requires_grad_()
    targets = torch.randint(0, 3000, (500,), generator=generator).cuda()
    targets[::7] = -100
    results = []
    for total in (
        plain_head_loss_sum(hidden, weight, targets),
        head_loss_sum(hidden, weight, targets, rows_at_once=64),
    ):
        results.append([total.detach(), *torch.autograd.grad(total, (hidden, weight))])
    for plain, chunked in zip(*results, strict=True):
        torch.testing.assert_close(chunked, plain, rtol=close, atol=close * max(1.0, float(plain.abs().max())))


def one_step(device: str, *, document_end: int | None = None, n_query_groups: int = 2) -> tuple[dict, float, float]:
    """Weights, loss and gradient norm of one AdamW step in float32."""
    shape = ModelConfig(n_layer=2, n_head=2, n_query_groups=n_query_groups, n_embd=64, block_size=32)
    model = Transformer(resolve_model(shape, vocab_size=70))
    initialize(model, 3)
    model.to(device).train()
    ids = torch.randint(0, 70, (8, 33), generator=torch.Generator().manual_seed(0))
    ids[:, 10::9] = 5
    result = train_step(
        Parallel(Objective(model, document_end=document_end)), list(model.parameters()),
        build_optimizers(model, OptimizerConfig(lr=1e-2, eps=1e-3)), ids[:, :-1].contiguous(), ids[:, 1:].contiguous(),
        rate=1e-2, micro_batch_size=4, max_norm=1.0, compute=Compute(torch.device(device), "32-true", False, 1),
    )  # fmt: skip
    return {n: t.cpu() for n, t in model.state_dict().items()}, result.loss_sum, result.grad_norm


@pytest.mark.parametrize(("document_end", "groups"), [(None, 2), (5, 2), (5, 1)], ids=["plain", "documents", "grouped"])
def test_a_step_of_fused_adamw_is_that_of_the_cpu(document_end: int | None, groups: int) -> None:
    ours, theirs = (one_step(device, document_end=document_end, n_query_groups=groups) for device in ("cuda", "cpu"))
    assert ours[1:] == pytest.approx(theirs[1:], rel=1e-4)
    for name, tensor in ours[0].items():
        torch.testing.assert_close(tensor, theirs[0][name], rtol=1e-3, atol=1e-4, msg=name)


def test_batches_fetched_ahead_are_pinned_and_the_same() -> None:
    def fetch(first: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = torch.arange(first, first + count)
        return inputs, -inputs

    with contextlib.closing(Prefetch(fetch, torch.device("cuda"))) as prefetch:
        for first in (0, 4, 20):
            batch = prefetch.get(first, 4, then=first + 4)
            assert all(part.is_pinned() for part in batch)
            assert [part.tolist() for part in batch] == [part.tolist() for part in fetch(first, 4)]


def test_a_compiled_run_in_bf16_is_the_eager_one_up_to_rounding(tmp_path: Path, text: Path) -> None:
    losses = []
    for compiled in ("true", "false"):
        flags = ["--device", "cuda", "--precision", "bf16-mixed", "--compile", compiled]
        assert run_tiny(text, tmp_path / compiled, *flags) == 0
        losses.append([r["loss"] for r in read_steps(tmp_path / compiled / "metrics.jsonl") if r["kind"] == "train"])
    assert losses[0] == pytest.approx(losses[1], abs=2e-2)
    assert losses[0][-1] < losses[0][0]


@pytest.mark.usefixtures("any_algorithm")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_resume_is_bitwise_equal_in_eager(tmp_path: Path, text: Path, precision: str) -> None:
    flags = ["--device", "cuda", "--precision", precision, "--compile", "false", "--deterministic", "true"]
    flags += ["--train.lr_decay_steps", "6"]
    assert run_tiny(text, tmp_path / "whole", *flags) == 0
    assert run_tiny(text, tmp_path / "cut", *flags, "--train.max_steps", "4") == 0
    assert run_tiny(text, tmp_path / "cut", *flags) == 0
    whole, cut = (list_checkpoints(tmp_path / run)[-1] for run in ("whole", "cut"))
    assert whole.name == cut.name
    assert weights_of(whole) == weights_of(cut)


def test_float8_trains_as_bf16_does(tmp_path: Path, text: Path) -> None:
    pytest.importorskip("torchao")
    if torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("needs float8 products (H100, RTX 40 or newer)")
    losses = []
    for precision in ("fp8-mixed", "bf16-mixed"):
        flags = ["--device", "cuda", "--precision", precision, "--compile", "false"]
        assert run_tiny(text, tmp_path / precision, *flags) == 0
        losses.append([r["loss"] for r in read_steps(tmp_path / precision / "metrics.jsonl") if r["kind"] == "train"])
    assert losses[0] == pytest.approx(losses[1], abs=0.15)
