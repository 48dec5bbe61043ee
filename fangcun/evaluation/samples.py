"""Free samples of a model, with what their text alone does not tell: whether they ended by themselves."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

from fangcun.generation import LanguageModel, SamplingSettings, stream_ids


@dataclass(frozen=True)
class Sample:
    """What a model wrote behind a prompt."""

    prompt: str
    text: str
    tokens: int
    ended: bool
    """It ended before the tokens it was allowed were written."""


def write_sample(
    model: LanguageModel,
    prompt: str,
    settings: SamplingSettings,
    *,
    max_new_tokens: int,
    seed: int | None,
    pause: Callable[[], None] | None = None,
) -> Sample:
    """Continue a prompt; the text is that of `LanguageModel.generate` with the same settings and seed.

    pause: called at each token; what it raises ends the sample.
    """
    tokenizer = model.tokenizer
    prompt_ids = tokenizer.encode(prompt)
    if tokenizer.unk_id is not None and tokenizer.unk_id in prompt_ids:
        warnings.warn(f"The model never saw a part of {prompt!r}: its tokenizer reads <unk> there.", stacklevel=2)
    decoder, text, count = tokenizer.stream(context=prompt_ids), "", 0
    ids = stream_ids(
        model.model,
        prompt_ids,
        settings,
        vocab_size=tokenizer.vocab_size,
        end_id=tokenizer.eos_id,
        max_new_tokens=max_new_tokens,
        seed=seed,
        stop_ids=model.stop_ids,
    )
    with closing(ids):
        for index in ids:
            if pause is not None:
                pause()
            text += decoder.push(index)
            count += 1
    return Sample(prompt, text + decoder.flush(), count, count < max_new_tokens)


def write_samples(
    model: LanguageModel,
    prompts: Sequence[str],
    count: int,
    settings: SamplingSettings,
    *,
    max_new_tokens: int,
    seed: int,
    done: Callable[[int], None] | None = None,
) -> list[Sample]:
    """`count` samples, of the prompts in turn; the n-th has seed `seed` + n. done: called with how many there are."""
    samples: list[Sample] = []
    for number in range(count):
        prompt = prompts[number % len(prompts)]
        samples.append(write_sample(model, prompt, settings, max_new_tokens=max_new_tokens, seed=seed + number))
        if done is not None:
            done(len(samples))
    return samples
