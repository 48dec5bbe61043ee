"""Dropout on the CPU: the right share, the right expectation, noise that follows the seed."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fangcun.model.dropout import LEVELS, drop, keep_mask


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_share_is_dropped_in_every_place_alike(share: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    n = 400_000
    mask = keep_mask(torch.empty(n, dtype=dtype), share)
    assert mask.dtype == dtype
    for lane in range(4):  # four entries come of one draw
        part = mask[lane::4]
        spread = math.sqrt(share * (1 - share) / len(part))
        assert abs(float((part == 0).double().mean()) - share) < 5 * spread
    kept = mask[mask > 0].unique()
    assert len(kept) == 1
    dropped = round(share * LEVELS)
    assert float(kept) == float(torch.tensor(LEVELS / (LEVELS - dropped), dtype=dtype))


def test_entries_are_dropped_independently() -> None:
    torch.manual_seed(1)
    zero = (keep_mask(torch.empty(400_000), 0.3) == 0).double()
    for distance in (1, 2, 3, 4, 5, 64):
        together = float((zero[distance:] * zero[:-distance]).mean())
        assert abs(together - 0.09) < 5 * math.sqrt(0.09 * 0.91 / 400_000)


@given(
    rows=st.integers(0, 7), columns=st.integers(0, 9), share=st.sampled_from([0.1, 0.999999]), seed=st.integers(0, 99)
)
def test_every_shape_has_a_mask_and_the_seed_decides(rows: int, columns: int, share: float, seed: int) -> None:
    like = torch.empty(columns, rows).t()
    torch.manual_seed(seed)
    first = keep_mask(like, share)
    torch.manual_seed(seed)
    assert first.shape == (rows, columns)
    assert torch.equal(first, keep_mask(like, share))
    assert torch.isfinite(first).all()


def test_the_gradient_passes_where_the_value_does() -> None:
    x = torch.randn(50, 7, requires_grad=True)
    torch.manual_seed(2)
    y = drop(x, 0.4, training=True)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(y, x * gradient)
    assert {round(v, 3) for v in gradient.unique().tolist()} == {0.0, round(LEVELS / (LEVELS - round(0.4 * LEVELS)), 3)}


def test_nothing_happens_at_share_0_and_in_evaluation() -> None:
    x = torch.randn(3)
    assert drop(x, 0.0, training=True) is x
    assert drop(x, 0.5, training=False) is x


def test_a_compiled_graph_takes_torchs_own() -> None:
    compiled = torch.compile(lambda x: drop(x, 0.5, training=True), backend="eager", fullgraph=True)
    assert 0 < int((compiled(torch.ones(1000)) == 0).sum()) < 1000
