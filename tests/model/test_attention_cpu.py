"""The CPU's own attention is torch's, in value and in gradient, however it is cut."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from fangcun.model import attention_cpu
from fangcun.model.attention_cpu import attention_pays, causal_attention
from fangcun.model.dropout import keep_mask


def draw(B: int, H: int, G: int, T: int, D: int, seed: int, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """Queries, keys and values in the memory order that the projections leave them in."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(B, T, n, D, generator=generator, dtype=torch.float64) for n in (H, G, G)]
    return [x.to(dtype).transpose(1, 2).requires_grad_() for x in drawn]


def gradients(result: torch.Tensor, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    upstream = torch.randn(result.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return torch.autograd.grad(result, inputs, upstream.to(result.dtype))


cuts = st.sampled_from([(1, 1 << 30), (4096, 0), (4 << 20, 12 << 20), (4 << 20, 0)])


@settings(max_examples=60, deadline=None)
@given(
    B=st.integers(1, 3), G=st.integers(1, 3), share=st.integers(1, 3), T=st.integers(2, 70), D=st.integers(1, 20),
    cut=cuts, seed=st.integers(0, 1000),
)  # fmt: skip
def test_value_and_gradients_are_those_of_torch(
    B: int, G: int, share: int, T: int, D: int, cut: tuple[int, int], seed: int
) -> None:
    inputs = draw(B, G * share, G, T, D, seed)
    plain = F.scaled_dot_product_attention(*inputs, is_causal=True, enable_gqa=share > 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_cpu, "BLOCK_BYTES", cut[0])
        patch.setattr(attention_cpu, "KEEP_BYTES", cut[1])
        ours = causal_attention(*inputs)
        torch.testing.assert_close(ours, plain)
        for a, b in zip(gradients(ours, inputs), gradients(plain, inputs), strict=True):
            torch.testing.assert_close(a, b)


@settings(max_examples=30, deadline=None)
@given(T=st.integers(2, 50), share=st.integers(1, 2), cut=cuts, seed=st.integers(0, 1000))
def test_a_mask_hides_what_it_says(T: int, share: int, cut: tuple[int, int], seed: int) -> None:
    inputs = draw(2, 2 * share, 2, T, 8, seed)
    seen = torch.rand(2, 1, T, T, generator=torch.Generator().manual_seed(seed)) < 0.5
    seen = (seen | torch.eye(T, dtype=torch.bool)).tril()
    plain = F.scaled_dot_product_attention(*inputs, attn_mask=seen, enable_gqa=share > 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_cpu, "BLOCK_BYTES", cut[0])
        patch.setattr(attention_cpu, "KEEP_BYTES", cut[1])
        ours = causal_attention(*inputs, seen=seen)
        torch.testing.assert_close(ours, plain)
        for a, b in zip(gradients(ours, inputs), gradients(plain, inputs), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("keep_bytes", [0, 1 << 30])
def test_dropout_multiplies_the_probabilities_and_reaches_the_gradients(
    keep_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention_cpu, "KEEP_BYTES", keep_bytes)
    T = 16  # one block, so that its one mask can be drawn again here
    inputs = draw(2, 4, 4, T, 6, 3)
    torch.manual_seed(5)
    ours = causal_attention(*inputs, dropout=0.3)
    torch.manual_seed(5)
    mask = keep_mask(torch.empty(8, T, T, dtype=torch.float64), 0.3).view(2, 4, T, T)
    query, key, value = inputs
    scores = (query @ key.transpose(-1, -2) / 6**0.5).masked_fill(torch.ones(T, T).triu(1).bool(), float("-inf"))
    plain = (scores.softmax(-1) * mask) @ value
    torch.testing.assert_close(ours, plain)
    for a, b in zip(gradients(ours, inputs), gradients(plain, inputs), strict=True):
        torch.testing.assert_close(a, b)


def test_bf16_is_as_near_to_the_truth_as_torchs_own() -> None:
    exact = draw(4, 4, 2, 200, 32, 7)
    narrow = [x.detach().to(torch.bfloat16).requires_grad_() for x in exact]
    truth = F.scaled_dot_product_attention(*exact, is_causal=True, enable_gqa=True)
    torchs = F.scaled_dot_product_attention(*narrow, is_causal=True, enable_gqa=True)
    ours = causal_attention(*narrow)

    def all_of(result: torch.Tensor, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        return [result.detach().double(), *(part.double() for part in gradients(result, inputs))]

    wanted = all_of(truth, exact)
    for own, other, true in zip(all_of(ours, narrow), all_of(torchs, narrow), wanted, strict=True):
        assert (own - true).norm() < max(1.5 * (other - true).norm(), 0.006 * true.norm())


def test_nothing_is_kept_without_gradients() -> None:
    inputs = draw(1, 2, 2, 20, 4, 9)
    with torch.no_grad():
        quiet = causal_attention(*inputs)
    assert quiet.grad_fn is None
    torch.testing.assert_close(quiet, causal_attention(*inputs).detach())


def test_it_is_for_cpus_and_types_with_fast_products(monkeypatch: pytest.MonkeyPatch) -> None:
    query = torch.zeros(1, 1, 4, 2)
    assert attention_pays(query)
    assert not attention_pays(query[:, :, :1])
    assert not attention_pays(query.to("meta"))
    assert not attention_pays(query.half())
    for native in (True, False):
        monkeypatch.setattr(attention_cpu, "cpu_computes_bf16", lambda native=native: native)
        assert attention_pays(query.bfloat16()) == native
