"""The learning rate is a pure function of the step: linear warm-up, then cosine, constant or wsd."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fangcun.training import learning_rate


def rate(step: int, **changes) -> float:
    settings = {"schedule": "cosine", "peak": 1e-3, "minimum": 1e-4, "warmup_steps": 10, "decay_steps": 110} | changes
    return learning_rate(step, **settings)


def test_warmup_rises_evenly_from_above_zero_to_the_peak() -> None:
    steps = [rate(s) for s in range(11)]
    assert steps[0] > 0
    assert steps[10] == pytest.approx(1e-3)
    assert all(b - a == pytest.approx(steps[0]) for a, b in itertools.pairwise(steps))


def test_cosine_is_half_way_in_the_middle_and_ends_at_the_minimum() -> None:
    assert rate(60) == pytest.approx((1e-3 + 1e-4) / 2)
    assert rate(110) == rate(10_000) == 1e-4


def test_constant_stays_at_the_peak() -> None:
    assert rate(10, schedule="constant", decay_steps=None) == rate(10**6, schedule="constant", decay_steps=None) == 1e-3


def test_cosine_without_a_length_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="decay_steps"):
        rate(50, decay_steps=None)


@pytest.mark.parametrize("shape", ["linear", "sqrt"])
def test_wsd_is_stable_and_falls_in_its_last_share(shape: str) -> None:
    rates = [rate(s, schedule="wsd", decay_share=0.4, decay_shape=shape) for s in range(130)]
    assert rates[10:67] == [1e-3] * 57  # decay begins at 110 - 44 = 66
    assert all(a > b for a, b in itertools.pairwise(rates[66:111]))
    assert rates[110:] == [1e-4] * 20
    half = rates[88]  # half way down
    left = 0.5 if shape == "linear" else 1 - math.sqrt(0.5)
    assert half == pytest.approx(1e-4 + 9e-4 * left)


def test_wsd_with_all_of_the_run_falls_from_the_warmup_on() -> None:
    assert rate(10, schedule="wsd", decay_share=1.0) == pytest.approx(1e-3)
    assert rate(60, schedule="wsd", decay_share=1.0) == pytest.approx((1e-3 + 1e-4) / 2)


@given(
    st.integers(0, 500),
    st.integers(0, 50),
    st.integers(51, 400),
    st.sampled_from(["cosine", "wsd"]),
    st.sampled_from(["linear", "sqrt"]),
    st.floats(0, 1),
)
def test_rate_stays_between_zero_and_the_peak(
    step: int, warmup: int, decay: int, schedule: str, shape: str, share: float
) -> None:
    value = rate(step, schedule=schedule, warmup_steps=warmup, decay_steps=decay, decay_shape=shape, decay_share=share)
    assert 0 < value <= 1e-3 * (1 + 1e-12)
    assert math.isfinite(value)
