"""Promises of decontamination: every shared run of the length is found, none is made up, and the report quotes it."""

from __future__ import annotations

import pickle
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fangcun.corpus.dedup import Folding, References
from fangcun.errors import FangcunError

FOLDING = Folding()


def prose(draw: random.Random, characters: int, first: int = 0x4E00) -> str:
    return "".join(chr(first + draw.randrange(3000)) for _ in range(characters))


def longest_run(one: str, other: str) -> int:
    """Longest common substring, by the textbook."""
    best, row = 0, [0] * (len(other) + 1)
    for a in one:
        row = [0] + [row[at] + 1 if a == b else 0 for at, b in enumerate(other)]
        best = max(best, *row)
    return best


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 10**6), start=st.integers(0, 60), run=st.integers(20, 45), before=st.integers(0, 20))
def test_a_shared_run_is_found_from_the_length_on_wherever_it_lies(
    seed: int, start: int, run: int, before: int
) -> None:
    draw = random.Random(seed)
    reference, other = prose(draw, 110), prose(draw, 50)
    shared = reference[start : start + run]
    marked = "，\n".join(shared[at : at + 7] for at in range(0, run, 7))
    text = prose(draw, before, 0x7000) + marked + prose(draw, 9, 0x7000)  # characters that no reference has
    found = References([("其他", other), ("题1", reference)], FOLDING).find(text)
    assert bool(found) == (run >= 32)
    if found:
        overlap = found[0]
        assert overlap.reference == "题1" and overlap.characters == run
        assert text[overlap.start :].startswith(overlap.text) and marked == overlap.text


@settings(max_examples=300, deadline=None)
@given(
    references=st.lists(st.text("甲乙，", max_size=60), max_size=4),
    text=st.text("甲乙。", max_size=90),
    long=st.sampled_from([13, 16, 32]),
)
def test_it_finds_what_comparing_all_runs_finds(references: list[str], text: str, long: int) -> None:
    index = References(enumerate_names(references), FOLDING, ngram_characters=long)
    found = {overlap.reference: overlap.characters for overlap in index.find(text)}
    folded = FOLDING.folded_text(text)
    for name, reference in enumerate_names(references):
        whole = FOLDING.folded_text(reference)
        run = longest_run(folded, whole)
        if len(whole) < 13:
            assert name in index.too_short and name not in found
        else:
            assert (name in found) == (run >= min(long, len(whole)))
            assert found.get(name, run) == run


def enumerate_names(references: list[str]) -> list[tuple[str, str]]:
    return [(f"题{number}", reference) for number, reference in enumerate(references)]


def test_short_references_are_matched_whole() -> None:
    index = pickle.loads(pickle.dumps(References([("a", "中国的首都是哪一座城市呢朋友"), ("b", "太短了")], FOLDING)))
    assert index.too_short == ["b"] and len(index) == 1
    assert [o.reference for o in index.find("问：中国的首都，是哪一座城市呢，朋友？答：北京")] == ["a"]
    assert not index.find("中国的首都是哪一座城市呢同志")


def test_traditional_text_is_found_when_asked_for() -> None:
    pytest.importorskip("opencc", reason="opencc is not installed")
    reference = [("题", "话说天下大势分久必合合久必分周末七国分争并入于秦及秦灭之后楚汉分争")]
    text = "話說天下大勢，分久必合，合久必分。周末七國分爭，並入於秦。及秦滅之後，楚、漢分爭"
    assert References(reference, Folding(traditional=True)).find(text)
    assert not References(reference, FOLDING).find(text)


def test_without_references_nothing_is_found_and_too_short_runs_are_refused() -> None:
    assert References([], FOLDING).find("却说曹操" * 20) == []
    with pytest.raises(FangcunError, match="at least 13"):
        References([], FOLDING, ngram_characters=8)
