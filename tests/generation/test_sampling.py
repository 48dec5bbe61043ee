"""Sampling: the distribution is that of transformers' processors, padding ids never come out, a seed means one text."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from fangcun.errors import FangcunError
from fangcun.generation.sampling import (
    SamplingSettings,
    draw,
    filter_logits,
    forbid_ids_from,
    keep_top_k,
    keep_top_p,
    penalize_repetition,
    sample,
)

V = 40


def some_logits(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3


def transformers_scores(logits: torch.Tensor, seen: torch.Tensor, settings: SamplingSettings) -> torch.Tensor:
    """Run transformers' processors in the order in which its `generate` collects them."""
    from transformers.generation import logits_process as hf

    chain: list[Any] = [hf.RepetitionPenaltyLogitsProcessor(float(settings.repetition_penalty))]
    chain.append(hf.TemperatureLogitsWarper(float(settings.temperature)))
    if settings.top_k is not None:
        chain.append(hf.TopKLogitsWarper(settings.top_k))
    if settings.top_p < 1:
        chain.append(hf.TopPLogitsWarper(settings.top_p))
    for processor in chain:
        logits = processor(seen, logits)
    return logits


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7])
@pytest.mark.parametrize("top_k", [None, 2, 7, 1000])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("penalty", [0.8, 1.0, 1.3])
def test_probabilities_are_those_of_transformers(
    temperature: float, top_k: int | None, top_p: float, penalty: float
) -> None:
    settings = SamplingSettings(temperature, top_k, top_p, penalty)
    logits = some_logits(int(100 * temperature * top_p) + (top_k or 0), 3, V)
    seen = torch.randint(V, (3, 25), generator=torch.Generator().manual_seed(5))
    theirs = transformers_scores(logits.clone(), seen, settings).softmax(-1)
    ours = filter_logits(logits, settings, vocab_size=V, seen_ids=seen).softmax(-1)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    assert torch.equal(ours > 0, theirs > 0)


def test_rows_of_a_batch_are_filtered_alone() -> None:
    settings = SamplingSettings(0.7, 9, 0.8, 1.2)
    logits, seen = some_logits(1, 4, V), torch.randint(V, (4, 6), generator=torch.Generator().manual_seed(2))
    together = filter_logits(logits, settings, vocab_size=V, seen_ids=seen)
    alone = torch.stack(
        [filter_logits(row, settings, vocab_size=V, seen_ids=ids) for row, ids in zip(logits, seen, strict=True)]
    )
    torch.testing.assert_close(together, alone)


def test_filters_leave_their_input_unchanged() -> None:
    logits = some_logits(3, V)
    before = logits.clone()
    filter_logits(logits, SamplingSettings(0.5, 5, 0.5, 1.5), vocab_size=V - 8, seen_ids=torch.arange(5))
    assert torch.equal(logits, before)


def test_ids_beyond_the_tokenizer_are_never_sampled() -> None:
    logits = torch.zeros(V)
    logits[30:] = 50.0
    generator = torch.Generator().manual_seed(0)
    drawn = {int(sample(logits, SamplingSettings(1.0, None), vocab_size=30, generator=generator)) for _ in range(400)}
    assert drawn <= set(range(30))
    assert len(drawn) > 20
    assert int(sample(logits, SamplingSettings(0.0), vocab_size=30)) < 30
    assert torch.isinf(forbid_ids_from(logits, 30)[30:]).all()


def test_penalty_counts_a_repeated_id_once_and_pulls_towards_less_likely() -> None:
    logits = torch.tensor([2.0, -2.0, 1.0, 0.0])
    got = penalize_repetition(logits, torch.tensor([0, 0, 1, 0, 3]), 2.0)
    assert got.tolist() == [1.0, -4.0, 1.0, 0.0]


def test_top_k_keeps_k_and_top_p_keeps_at_least_one() -> None:
    logits = torch.arange(float(V))
    assert int(keep_top_k(logits, 6).isfinite().sum()) == 6
    assert keep_top_p(logits, 1e-9).isfinite().nonzero().flatten().tolist() == [V - 1]
    half = keep_top_p(torch.tensor([0.5, 0.3, 0.15, 0.05]).log(), 0.7)
    assert half.isfinite().tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    "settings",
    [
        SamplingSettings(temperature=0.0),
        SamplingSettings(top_k=1, temperature=2.0),
        SamplingSettings(temperature=1e-40),
    ],
)
def test_zero_temperature_and_top_1_are_greedy(settings: SamplingSettings) -> None:
    logits = some_logits(7, 5, V)
    assert torch.equal(sample(logits, settings, vocab_size=V), logits.argmax(-1))


def test_the_same_seed_draws_the_same_and_frequencies_follow_the_probabilities() -> None:
    logits = torch.tensor([0.6, 0.3, 0.1]).log().expand(4000, 3)
    settings = SamplingSettings(1.0, None)
    first = sample(logits, settings, vocab_size=3, generator=torch.Generator().manual_seed(9))
    again = sample(logits, settings, vocab_size=3, generator=torch.Generator().manual_seed(9))
    other = sample(logits, settings, vocab_size=3, generator=torch.Generator().manual_seed(10))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    shares = first.bincount(minlength=3) / 4000
    # Five standard deviations of a share of 4,000 draws are below 0.04.
    torch.testing.assert_close(shares, torch.tensor([0.6, 0.3, 0.1]), atol=0.04, rtol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_broken_logits_are_an_error_and_no_token(bad: float) -> None:
    logits = torch.zeros(V)
    logits[3] = bad
    for settings in (SamplingSettings(0.0), SamplingSettings(0.8), SamplingSettings(1.0, None, 0.9)):
        with pytest.raises(FangcunError, match="finite"):
            sample(logits, settings, vocab_size=V)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", "warm"),
        ("top_k", 0),
        ("top_k", 1.5),
        ("top_k", True),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_p", math.nan),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", -1),
    ],
)
def test_a_wrong_setting_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(FangcunError, match=rf"^{name} is "):
        SamplingSettings(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "settings",
    [
        SamplingSettings(0.8, 7),
        SamplingSettings(1.3, None),
        SamplingSettings(1.0, None, 0.9),
        SamplingSettings(0.7, None, 0.5, min_p=0.1),
        SamplingSettings(1.0, 40, 0.8, min_p=0.02),
        SamplingSettings(1.0, None, 0.999999),
    ],
)
@pytest.mark.parametrize("size", [40, 3000])
def test_draws_follow_the_filtered_distribution(settings: SamplingSettings, size: int) -> None:
    logits = some_logits(11, size)
    wanted = filter_logits(logits, settings, vocab_size=size).double().softmax(-1)
    generator, count = torch.Generator().manual_seed(3), 4000
    drawn = torch.tensor([draw(logits, settings, vocab_size=size, generator=generator) for _ in range(count)])
    shares = torch.bincount(drawn, minlength=size) / count
    assert not bool(shares[wanted == 0].any())
    # Five standard deviations of the frequency of each token, and what a rare one may have by chance.
    assert bool(((shares - wanted).abs() <= 5 * (wanted * (1 - wanted) / count).sqrt() + 3 / count).all())


def test_min_p_is_that_of_transformers() -> None:
    from transformers.generation.logits_process import MinPLogitsWarper

    logits = some_logits(5, 3, V)
    theirs = MinPLogitsWarper(0.1)(torch.empty(3, 0, dtype=torch.int64), logits / 0.7).softmax(-1)
    ours = filter_logits(logits, SamplingSettings(0.7, None, min_p=0.1), vocab_size=V).softmax(-1)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
