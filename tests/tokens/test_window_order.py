"""Promises of the data order."""

from __future__ import annotations

import time
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fangcun.errors import FangcunError
from fangcun.tokens.order import Permutation, WindowOrder


@st.composite
def streams(draw: st.DrawFn) -> tuple[int, int, int]:
    n_tokens = draw(st.integers(2, 400))
    return n_tokens, draw(st.integers(1, n_tokens - 1)), draw(st.integers(0, 2**70))


@settings(max_examples=60, deadline=None)
@given(streams())
def test_every_token_but_the_first_is_a_target_exactly_once_an_epoch(stream: tuple[int, int, int]) -> None:
    n_tokens, block_size, seed = stream
    order = WindowOrder(n_tokens, block_size, seed)
    sample = 0
    for epoch in range(3):
        seen = np.zeros(n_tokens, int)
        for place in range(order.samples_in_epoch(epoch)):
            assert order.locate(sample) == (epoch, place)
            window = order.window(sample)
            assert 0 <= window.start < window.first_target <= window.last_target < window.stop <= n_tokens
            assert window.stop - window.start == block_size + 1
            seen[window.first_target : window.last_target + 1] += 1
            sample += 1
        assert seen[0] == 0
        assert (seen[1:] == 1).all()


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**64), st.integers(0, 10**6))
def test_permutation_is_a_bijection(size: int, seed: int, epoch: int) -> None:
    image = Permutation(size, seed, epoch)(np.arange(size))
    assert np.array_equal(np.sort(image), np.arange(size))


@settings(max_examples=100, deadline=None)
@given(streams(), st.integers(0, 3000), st.integers(0, 200))
def test_many_windows_at_once_are_those_asked_for_one_by_one(
    stream: tuple[int, int, int], first: int, count: int
) -> None:
    order = WindowOrder(*stream)
    starts, first_targets, last_targets = order.windows(first, count)
    together = list(zip(starts.tolist(), first_targets.tolist(), last_targets.tolist(), strict=True))
    assert together == [tuple(WindowOrder(*stream).window(first + i))[:3] for i in range(count)]


@settings(max_examples=100, deadline=None)
@given(streams())
def test_epochs_differ_by_at_most_one_sample(stream: tuple[int, int, int]) -> None:
    order = WindowOrder(*stream)
    counts = {order.samples_in_epoch(epoch) for epoch in range(50)}
    assert max(counts) - min(counts) <= 1


def test_order_is_fixed_for_ever() -> None:
    """Resuming an old run needs the same order from every later version."""
    order = WindowOrder(10_000, 64, 42)
    assert order.windows(0, 6).starts.tolist() == [5180, 3516, 9660, 5116, 3772, 9596]
    assert order.windows(1_000_000, 4).starts.tolist() == [3621, 9509, 2469, 6949]


@pytest.mark.parametrize("size", [50, 1000, 1024, 4099])
def test_order_is_not_visibly_structured(size: int) -> None:
    index = np.arange(size)
    correlations, neighbours = [], []
    for seed in range(40):
        image = Permutation(size, seed, 0)(index)
        correlations.append(np.corrcoef(index, image)[0, 1])
        neighbours.append(np.corrcoef(image[:-1], image[1:])[0, 1])
    # Correlations of random orders scatter with 1 / sqrt(size).
    for found in (np.array(correlations), np.array(neighbours)):
        assert np.abs(found).max() < 4 / size**0.5
        assert 0.6 < found.std() * size**0.5 < 1.5
    if size >= 1000:
        assert np.abs(np.array(correlations)).max() < 0.12


def test_correlation_of_index_and_position_is_small_for_1000_windows() -> None:
    order = WindowOrder(1000 * 32 + 1, 32, 7)
    starts = order.windows(0, 1000).starts
    assert abs(np.corrcoef(np.arange(1000), starts)[0, 1]) < 0.1


def test_steps_between_neighbours_are_evenly_distributed() -> None:
    size = 997
    steps = np.concatenate([np.diff(Permutation(size, seed, 1)(np.arange(size))) % size for seed in range(50)])
    counts = np.bincount(steps, minlength=size)[1:]
    chi_square = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    assert abs(chi_square - (size - 2)) < 5 * (2 * (size - 2)) ** 0.5


@pytest.mark.parametrize("size", [2, 3, 4, 5, 7, 10])
def test_first_of_an_epoch_is_uniform(size: int) -> None:
    epochs = 3000
    counts = Counter(int(Permutation(size, 42, epoch)(np.array([0]))[0]) for epoch in range(epochs))
    expected = epochs / size
    chi_square = sum((counts[i] - expected) ** 2 / expected for i in range(size))
    assert chi_square < (size - 1) + 5 * (2 * (size - 1)) ** 0.5


@pytest.mark.parametrize("size", [3, 4])
def test_all_orders_of_few_windows_occur_equally_often(size: int) -> None:
    epochs = 4800
    counts = Counter(tuple(Permutation(size, 1, epoch)(np.arange(size)).tolist()) for epoch in range(epochs))
    orders = list(permutations(range(size)))
    expected = epochs / len(orders)
    chi_square = sum((counts[order] - expected) ** 2 / expected for order in orders)
    assert chi_square < (len(orders) - 1) + 5 * (2 * (len(orders) - 1)) ** 0.5


def test_epochs_and_seeds_have_different_orders_and_cuts() -> None:
    order, other = WindowOrder(50_000, 100, 1), WindowOrder(50_000, 100, 2)
    epochs = [tuple(order.windows(order._ends_beyond(10**4)[e] - 100, 100).starts.tolist()) for e in range(5)]
    assert len(set(epochs)) == 5
    assert len({order.offset(epoch) for epoch in range(50)}) > 25
    assert order.windows(0, 100).starts.tolist() != other.windows(0, 100).starts.tolist()


def test_a_late_sample_is_found_at_once() -> None:
    order = WindowOrder(1 << 45, 4096, 3)
    began = time.perf_counter()
    windows = order.windows(123_456_789_012, 64)
    assert time.perf_counter() - began < 1
    assert windows.starts.max() < 1 << 45
    assert len(set(windows.starts.tolist())) == 64


def test_streams_too_short_are_refused_with_a_remedy() -> None:
    with pytest.raises(FangcunError, match="1 tokens"):
        WindowOrder(1, 1, 0)
    with pytest.raises(
        FangcunError, match=r"100 tokens.*block_size \+ 1 = 129.*model.block_size.*train.max_seq_length.*99"
    ):
        WindowOrder(100, 128, 0)
    with pytest.raises(FangcunError, match="block_size is 0"):
        WindowOrder(100, 0, 0)
