"""The learning rate is a pure function of the step: linear warm-up, then cosine or constant."""

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


@given(st.integers(0, 500), st.integers(0, 50), st.integers(51, 400))
def test_rate_stays_between_zero_and_the_peak(step: int, warmup: int, decay: int) -> None:
    value = rate(step, warmup_steps=warmup, decay_steps=decay)
    assert 0 < value <= 1e-3
    assert math.isfinite(value)
