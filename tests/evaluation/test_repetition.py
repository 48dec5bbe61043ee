"""Repetition of free samples: loops are found where they are, prose has none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import language_model
from tiny import story

from fangcun.evaluation.repetition import Loop, describe_samples, distinct, longest_loop
from fangcun.evaluation.samples import write_samples
from fangcun.generation import SamplingSettings


def by_hand(text: str) -> int:
    """Characters of the longest loop, the slow way; 0: none."""
    best = 0
    for period in range(1, len(text) // 3 + 1):
        for start in range(len(text) - 3 * period + 1):
            end = start + period
            while end < len(text) and text[end] == text[end - period]:
                end += 1
            if end - start >= max(3 * period, 16):
                best = max(best, end - start)
    return best


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text("ab", max_size=60), st.builds(lambda a, u, n, b: a + u * n + b, st.text("abc", max_size=8), st.text("ab甲", min_size=1, max_size=9), st.integers(1, 8), st.text("abc", max_size=8))))  # fmt: skip
def test_the_longest_loop_is_the_longest(text: str) -> None:
    found = longest_loop(text)
    assert (found.length if found else 0) == by_hand(text)
    if found:
        loop = text[found.start : found.start + found.length]
        assert loop == (loop[: found.period] * found.length)[: found.length]


def test_a_loop_is_told_with_its_unit() -> None:
    assert longest_loop("话说" + "天下大势，" * 4 + "天下完") == Loop(2, 5, 22)
    for text in ("", "哈哈哈哈", "……………………", story(1, 50), "好的，好的，走吧，走吧。"):
        assert longest_loop(text) is None


def test_distinct_counts_different_n_grams_over_all() -> None:
    assert distinct(["abab", "ab"], 1) == 2 / 6
    assert distinct(["abab", "ab"], 2) == 2 / 4
    assert distinct(["a", ""], 2) is None


def test_figures_of_samples() -> None:
    looping = "甲乙" * 10
    record = describe_samples([looping, "天地玄黄"], [False, True])
    assert (record["samples"], record["loop_share"], record["longest_loop_characters"]) == (2, 0.5, 20)
    assert (record["mean_characters"], record["ended_share"]) == (12, 0.5)
    assert record["distinct_1"] == pytest.approx(6 / 24)
    assert "ended_share" not in describe_samples([looping])
    assert describe_samples([])["loop_share"] is None


def test_samples_are_what_generate_writes_and_say_whether_they_ended() -> None:
    lm = language_model()
    settings = SamplingSettings(1.0, None, 1.0, 1.0)
    samples = write_samples(lm, ["却", "a"], 3, settings, max_new_tokens=300, seed=5)
    assert [s.prompt for s in samples] == ["却", "a", "却"]
    for n, sample in enumerate(samples):
        text = lm.generate(sample.prompt, max_new_tokens=300, temperature=1.0, top_k=None, seed=5 + n)
        assert text == sample.text
        assert sample.ended == (sample.tokens < 300)
    assert {s.ended for s in samples} <= {True, False}
    assert not write_samples(lm, [""], 1, settings, max_new_tokens=1, seed=0)[0].ended
