"""What looks back: transformers' rule for runs, OpenAI's penalties, loops that end while refrains stay."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fangcun.generation.memory import Loops, Memory
from fangcun.generation.sampling import SamplingSettings


def some_logits(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3


@pytest.mark.parametrize("length", [1, 2, 3])
def test_no_run_is_written_twice_as_in_transformers(length: int) -> None:
    from transformers.generation.logits_process import NoRepeatNGramLogitsProcessor

    ids = torch.randint(6, (30,), generator=torch.Generator().manual_seed(length)).tolist()
    memory, reference = Memory(SamplingSettings(no_repeat_ngram=length), ids[:10]), NoRepeatNGramLogitsProcessor(length)
    logits = some_logits(1, 12)
    for place in range(10, 30):
        memory.add(ids[place])
        theirs = reference(torch.tensor([ids[: place + 1]]), logits[None].clone())[0]
        assert torch.equal(memory.apply(logits), theirs)
    tiny = Memory(SamplingSettings(no_repeat_ngram=1), [0, 1])
    assert torch.equal(tiny.apply(logits[:2]), logits[:2])  # nothing would be left


def test_frequency_and_presence_count_what_was_written() -> None:
    memory = Memory(SamplingSettings(frequency_penalty=0.5, presence_penalty=0.25), [3, 3, 3])
    for index in (1, 1, 2):
        memory.add(index)
    assert memory.apply(torch.zeros(5)).tolist() == [0, -1.25, -0.75, 0, 0]


def test_loops_end_and_refrains_stay() -> None:
    def forbidden(ids: list[int], max_repeats: int = 3) -> set[int]:
        memory = Memory(SamplingSettings(max_repeats=max_repeats), ids[:5])
        for index in ids[5:]:
            memory.add(index)
        return set((memory.apply(torch.zeros(1000)) == -math.inf).nonzero().flatten().tolist())

    unit = list(range(10, 17))
    assert forbidden([1, 2, *unit * 2]) == set()
    assert forbidden([1, 2, *unit * 3]) == {10}
    assert forbidden([1, 2, *unit * 3], max_repeats=4) == set()
    assert forbidden([1, 2, *unit * 3, 10, 11, 12]) == {13}
    assert forbidden([1, 2, *unit * 3, 99]) == set()
    assert forbidden([5] * 15) == set()
    assert forbidden([5] * 16) == {5}
    long = list(range(300, 428))
    assert forbidden(long * 3) == {300}
    assert forbidden([*range(500, 700), *long * 3]) == {300}
    assert forbidden(list(range(300, 429)) * 3) == set()  # a unit longer than is looked for


@given(st.lists(st.integers(0, 2), max_size=80), st.integers(2, 4))
def test_loops_are_those_of_a_plain_search(ids: list[int], max_repeats: int) -> None:
    loops = Loops(max_repeats)
    for index in ids:
        loops.add(index)
    wanted = set()
    for period in range(1, 129):
        matches = 0
        while matches + period < len(ids) and ids[-1 - matches] == ids[-1 - matches - period]:
            matches += 1
        if matches >= (max_repeats - 1) * period and matches + period >= 16:
            wanted.add(ids[-period])
    assert loops.going_on() == sorted(wanted)
