"""The CPU's own norm, rotation and embedding are the plain ones, in value and in gradient."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shapes import random_ids, random_model, small_config

from fangcun.model import kernels_cpu
from fangcun.model.kernels_cpu import (
    embed,
    gelu,
    give_gradient_last,
    pays,
    plain_gelu,
    plain_rms_norm,
    plain_rotation,
    rms_norm,
    rotation,
)
from fangcun.model.loss import head_loss_sum


def grads_like(result: torch.Tensor, inputs: list[torch.Tensor], seed: int) -> tuple[torch.Tensor, ...]:
    """Gradients of `inputs` for a random gradient of `result`."""
    upstream = torch.randn(result.shape, generator=torch.Generator().manual_seed(seed))
    return torch.autograd.grad(result, inputs, upstream)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 30),
    size=st.integers(1, 70),
    scale=st.sampled_from([1e-4, 1.0, 1e4]),
    shift=st.sampled_from([0.0, 5.0]),
    transposed=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_rms_norm(rows: int, size: int, scale: float, shift: float, transposed: bool, seed: int) -> None:
    torch.manual_seed(seed)
    x = (shift + torch.randn(rows, 3, size)) * scale
    x = (x.transpose(0, 1) if transposed else x).requires_grad_()
    weight = torch.randn(size).requires_grad_()
    assert pays(x, weight)
    ours, plain = rms_norm(x, weight, 1e-6), plain_rms_norm(x, weight, 1e-6)
    torch.testing.assert_close(ours, plain)
    (for_x, for_weight), wanted = (grads_like(y, [x, weight], seed) for y in (ours, plain))
    # The gradient of x is a difference; what cancels is as large as the weight over the root mean square.
    size_of_terms = float(weight.detach().abs().max() / x.detach().square().mean(-1).add(1e-6).sqrt().min())
    torch.testing.assert_close(for_x, wanted[0], rtol=1e-4, atol=2e-5 * size_of_terms)
    torch.testing.assert_close(for_weight, wanted[1], rtol=1e-4, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 700), at_once=st.sampled_from([1, 64, 1 << 18]), scale=st.sampled_from([0.1, 3.0, 40.0]))
def test_gelu_in_bf16(n: int, at_once: int, scale: float) -> None:
    torch.manual_seed(n)
    x = (scale * torch.randn(2, n)).bfloat16().t().requires_grad_()
    assert pays(x, dtype=torch.bfloat16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels_cpu, "AT_ONCE", at_once)
        ours = gelu(x)
    exact = x.detach().double().requires_grad_()
    wanted = plain_gelu(exact)
    torch.testing.assert_close(ours.double(), wanted, rtol=2**-8, atol=1e-6)  # rounded once
    upstream = torch.randn(ours.shape).bfloat16()
    (got,) = torch.autograd.grad(ours, x, upstream)
    (true,) = torch.autograd.grad(wanted, exact, upstream.double())
    torch.testing.assert_close(got.double(), true, rtol=2**-7, atol=1e-6)  # the slope and the product


@settings(max_examples=40, deadline=None)
@given(length=st.integers(1, 9), heads=st.integers(1, 4), half=st.integers(1, 20), seed=st.integers(0, 1000))
def test_rotation(length: int, heads: int, half: int, seed: int) -> None:
    torch.manual_seed(seed)
    whole = torch.randn(2, length, heads + 1, 2 * half).requires_grad_()
    angles = torch.randn(length, 1, half)
    cos, sin = torch.cat((angles.cos(),) * 2, -1), torch.cat((-angles.sin(), angles.sin()), -1)
    x = whole[:, :, :heads]  # as in attention: a part of a larger tensor
    ours, plain = rotation(x, cos, sin), plain_rotation(x, cos, sin)
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(grads_like(ours, [whole], seed), grads_like(plain, [whole], seed))


@pytest.mark.parametrize("tied", [True, False])
def test_embedding(tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels_cpu, "LARGE", 0)
    torch.manual_seed(0)
    weight, ids = torch.randn(11, 4).requires_grad_(), torch.randint(0, 11, (3, 7))
    ours, plain = embed(ids, weight, tied), torch.nn.functional.embedding(ids, weight)
    assert torch.equal(ours, plain)
    (got,), (wanted,) = grads_like(ours, [weight], 1), grads_like(plain, [weight], 1)
    assert got.is_sparse == tied
    torch.testing.assert_close(got.to_dense() if tied else got, wanted)


def test_the_gradient_of_a_tied_embedding_needs_no_second_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tensor that the head's loss made takes the embedding's part in and becomes .grad itself."""
    monkeypatch.setattr(kernels_cpu, "LARGE", 0)
    config = small_config()
    model, ids = random_model(config), random_ids(config)
    weight = give_gradient_last(model.head_weight)
    loss = head_loss_sum(model.hidden(ids), weight, ids, rows_at_once=7)
    address = loss.grad_fn.gradients[1].data_ptr()  # type: ignore[union-attr]
    loss.backward()
    assert model.embedding.weight.grad is not None
    assert model.embedding.weight.grad.data_ptr() == address


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "shape", [{}, {"qk_norm": False, "family": "mistral"}, {"norm_class": "LayerNorm", "exportable": False}]
)
def test_a_training_step_has_the_gradients_of_the_plain_model(
    tied: bool, shape: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels_cpu, "LARGE", 0)
    config = small_config(tie_embeddings=tied, **shape)
    model, ids = random_model(config), random_ids(config)
    found = []
    for plain in (False, True):
        if plain:
            monkeypatch.setattr(kernels_cpu, "pays", lambda *_: False)
        for _ in range(2):  # two micro-batches: the second adds to what is there
            weight = give_gradient_last(model.head_weight)
            head_loss_sum(model.hidden(ids), weight, ids.roll(-1, 1), rows_at_once=7).backward()
        found.append({name: p.grad for name, p in model.named_parameters()})
        model.zero_grad(set_to_none=True)
    for name, wanted in found[1].items():
        assert found[0][name].layout == torch.strided, name
        torch.testing.assert_close(
            found[0][name], wanted, rtol=1e-4, atol=1e-4, msg=lambda m, name=name: f"{name}: {m}"
        )


def test_the_plain_forms_are_taken_where_ours_bring_nothing() -> None:
    x = torch.randn(3, requires_grad=True)
    assert pays(x)
    assert not pays(x.detach())
    assert not pays(x.double())
    assert not pays(x.to("meta"))
    with torch.no_grad():
        assert not pays(x)
