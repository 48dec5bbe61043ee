"""The head's loss in chunks is the plain one, in value and in gradient, for every shape, mask, cap and type."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fangcun.model.loss import (
    PLAIN_UP_TO_ROWS,
    _head_loss,
    cross_entropy_sum,
    head_loss_sum,
    plain_head_loss_sum,
    rows_in_budget,
)


def draw(n: int, width: int, vocabulary: int, dtype: torch.dtype, masked: float, seed: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, width, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(vocabulary, width, generator=generator).to(dtype).requires_grad_()
    targets = torch.randint(0, vocabulary, (n,), generator=generator)
    targets[torch.rand(n, generator=generator) < masked] = -100
    return hidden, weight, targets


@settings(max_examples=80, deadline=None)
@given(
    n=st.integers(1, 40),
    width=st.integers(1, 12),
    vocabulary=st.integers(1, 50),
    rows=st.integers(1, 45),
    masked=st.sampled_from([0.0, 0.3, 1.0]),
    softcap=st.sampled_from([None, 2.0, 30.0]),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    seed=st.integers(0, 1000),
)
def test_value_and_gradients_are_those_of_the_plain_loss(
    n, width, vocabulary, rows, masked, softcap, dtype, seed
) -> None:
    hidden, weight, targets = draw(n, width, vocabulary, dtype, masked, seed)
    plain = plain_head_loss_sum(hidden, weight, targets, softcap=softcap)
    wanted = torch.autograd.grad(plain * 0.37, (hidden, weight))
    chunked = head_loss_sum(hidden, weight, targets, softcap=softcap, rows_at_once=rows)
    got = torch.autograd.grad(chunked * 0.37, (hidden, weight))
    assert chunked.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    close = {torch.float64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 3e-2}[dtype]
    torch.testing.assert_close(chunked, plain, rtol=close, atol=close)
    for ours, theirs in zip(got, wanted, strict=True):
        assert ours.dtype == theirs.dtype == dtype
        torch.testing.assert_close(ours, theirs, rtol=close, atol=close * max(1.0, float(theirs.abs().max())))


@pytest.mark.parametrize("softcap", [None, 1.5])
def test_gradcheck_in_float64(softcap: float | None) -> None:
    hidden, weight, targets = draw(7, 3, 5, torch.float64, 0.2, 1)

    def loss(h: Tensor, w: Tensor) -> Tensor:
        # The form for compiled graphs: gradcheck runs backward several times, the eager form gives its gradients once.
        return _head_loss(h, w, targets, softcap, -100, torch.float64, 3, True, True)[0]

    assert torch.autograd.gradcheck(loss, (hidden, weight))


@pytest.mark.parametrize("rows", [None, 5])
@pytest.mark.parametrize("vocabulary", [30, PLAIN_UP_TO_ROWS + 1])
def test_under_autocast_products_are_bf16_and_the_loss_is_float32(rows: int | None, vocabulary: int) -> None:
    hidden, weight, targets = draw(12, 32, vocabulary, torch.float32, 0.1, 2)
    with torch.autocast("cpu", torch.bfloat16):
        got = head_loss_sum(hidden, weight, targets, rows_at_once=rows)
        plain = plain_head_loss_sum(hidden, weight, targets)
    exact = plain_head_loss_sum(hidden, weight, targets)
    ours, theirs = (torch.autograd.grad(loss, (hidden, weight)) for loss in (got, plain))
    assert (got.dtype, ours[0].dtype, ours[1].dtype) == (torch.float32,) * 3
    torch.testing.assert_close(got, plain, rtol=1e-5, atol=0)
    assert abs(got - exact) > 1e-6 * exact, "the products were not bf16"
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-2, atol=2e-2 * float(b.abs().max()))


def test_a_hopeless_target_has_its_exact_loss() -> None:
    """Probabilities below float32's smallest number must not become an infinite loss."""
    hidden, weight = torch.tensor([[1.0]], requires_grad=True), torch.tensor([[300.0], [0.0], [-50.0]])
    loss = head_loss_sum(hidden, weight, torch.tensor([2]), rows_at_once=1)
    assert loss.item() == 350.0


@pytest.mark.parametrize("wanted", [(True, False), (False, True), (False, False)])
def test_only_wanted_gradients_are_made(wanted: tuple[bool, bool]) -> None:
    hidden, weight, targets = draw(9, 4, 11, torch.float32, 0.2, 3)
    plain = plain_head_loss_sum(hidden, weight, targets)
    grads = torch.autograd.grad(plain, (hidden, weight))
    hidden.requires_grad_(wanted[0]), weight.requires_grad_(wanted[1])
    loss = head_loss_sum(hidden, weight, targets, rows_at_once=4)
    torch.testing.assert_close(loss.detach(), plain.detach())
    assert loss.requires_grad == any(wanted)
    if loss.requires_grad:
        loss.backward()
    for tensor, gradient, asked in zip((hidden, weight), grads, wanted, strict=True):
        if asked:
            torch.testing.assert_close(tensor.grad, gradient)
        else:
            assert tensor.grad is None


def test_without_gradients_the_loss_is_a_plain_number() -> None:
    hidden, weight, targets = draw(9, 4, 11, torch.float32, 0.2, 3)
    with torch.no_grad():
        loss = head_loss_sum(hidden, weight, targets, rows_at_once=4)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, plain_head_loss_sum(hidden, weight, targets).detach())


def test_batches_keep_their_shape_and_micro_batches_add_up() -> None:
    hidden, weight, targets = draw(24, 8, 17, torch.float32, 0.2, 4)
    whole = hidden.detach().view(4, 6, 8).requires_grad_()
    head_loss_sum(whole, weight, targets.view(4, 6), rows_at_once=5).backward()
    together, weight.grad = weight.grad, None
    for part, wanted in zip(hidden.split(6), targets.split(6), strict=True):
        head_loss_sum(part, weight, wanted, rows_at_once=5).backward()
    assert whole.grad is not None
    assert hidden.grad is not None
    torch.testing.assert_close(whole.grad.view(24, 8), hidden.grad)
    torch.testing.assert_close(together, weight.grad)


def test_the_gradient_becomes_grad_without_a_copy_and_is_given_once() -> None:
    hidden, weight, targets = draw(9, 4, 11, torch.float32, 0.0, 5)
    loss = head_loss_sum(hidden, weight, targets, rows_at_once=4)
    address = loss.grad_fn.gradients[1].data_ptr()  # type: ignore[union-attr]
    loss.backward(retain_graph=True)
    assert weight.grad is not None
    assert weight.grad.data_ptr() == address
    with pytest.raises(RuntimeError, match="used up"):
        loss.backward()


@pytest.mark.parametrize("wanted", [(True, True), (False, True)])
def test_compiled_it_is_one_node_with_the_same_gradients(wanted: tuple[bool, bool]) -> None:
    hidden, weight, targets = draw(14, 8, 19, torch.float32, 0.2, 6)
    hidden.requires_grad_(wanted[0])
    asked = [t for t, w in zip((hidden, weight), wanted, strict=True) if w]

    def loss(h: Tensor, w: Tensor, y: Tensor) -> Tensor:
        return head_loss_sum(2 * h, w, y, softcap=9.0, rows_at_once=4) / 3

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    got, plain = compiled(hidden, weight, targets), loss(hidden, weight, targets)
    torch.testing.assert_close(got, plain)
    for a, b in zip(torch.autograd.grad(got, asked), torch.autograd.grad(plain, asked), strict=True):
        torch.testing.assert_close(a, b)


def test_a_target_outside_the_vocabulary_is_refused() -> None:
    hidden, weight, _ = draw(2, 4, 11, torch.float32, 0.0, 7)
    with pytest.raises((IndexError, RuntimeError)):
        head_loss_sum(hidden, weight, torch.tensor([3, 11]), rows_at_once=1)


def test_the_sum_is_that_of_cross_entropy_sum() -> None:
    hidden, weight, targets = draw(20, 8, 30, torch.float32, 0.3, 8)
    total, count = cross_entropy_sum(hidden @ weight.T, targets)
    torch.testing.assert_close(head_loss_sum(hidden, weight, targets), total)
    assert int(count) == int((targets != -100).sum())


def test_few_rows_of_a_large_vocabulary_exist_at_once() -> None:
    assert rows_in_budget(65_024, "cpu") * 65_024 * 4 <= 64 << 20
    assert rows_in_budget(151_936, "cpu") >= 96
    assert rows_in_budget(10**9, "cpu") == 16
