"""What looks back: transformers' rule for runs, OpenAI's penalties, and what is forbidden only where something is left."""

from __future__ import annotations

import pytest
import torch

from fangcun.generation.memory import Memory
from fangcun.generation.sampling import SamplingSettings


def some_logits(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3


@pytest.mark.parametrize("length", [1, 2, 3])
def test_no_run_is_written_twice_as_in_transformers(length: int) -> None:
    from transformers.generation.logits_process import NoRepeatNGramLogitsProcessor

    ids = torch.randint(6, (30,), generator=torch.Generator().manual_seed(length)).tolist()
    memory, reference = Memory(SamplingSettings(no_repeat_ngram=length), [7, 8]), NoRepeatNGramLogitsProcessor(length)
    logits = some_logits(1, 12)
    for place in range(30):
        memory.add(ids[place])
        theirs = reference(torch.tensor([ids[: place + 1]]), logits[None].clone())[0]
        assert torch.equal(memory.apply(logits), theirs)
    tiny = Memory(SamplingSettings(no_repeat_ngram=1), [])
    tiny.add(0)
    tiny.add(1)
    assert torch.equal(tiny.apply(logits[:2]), logits[:2])  # nothing would be left


def test_frequency_and_presence_count_what_was_written() -> None:
    memory = Memory(SamplingSettings(frequency_penalty=0.5, presence_penalty=0.25), [3, 3, 3])
    for index in (1, 1, 2):
        memory.add(index)
    assert memory.apply(torch.zeros(5)).tolist() == [0, -1.25, -0.75, 0, 0]
