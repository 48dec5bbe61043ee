"""Ids from a model for one prompt, one after the other: read the prompt, then one position a step over a KV cache.

Rules that hold for every model:

- An empty prompt starts from the end-of-document token, as a document does in training.
- Of a prompt longer than `block_size` the last `block_size` ids are read, with a warning.
- When the context is full (`block_size` ids) and goes on, it starts anew from its last half, the new id included, and
  is read again from position 0. So no position is ever used that training did not see, and a step costs the same
  however long the text grows; what lies before the last half is forgotten.
- Forward passes run in the dtype of the weights, without autocast, dropout off, under `torch.inference_mode`.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from typing import Any

from torch import nn

from fangcun.errors import FangcunError
from fangcun.generation.rows import Rows
from fangcun.generation.samples import Sample, make_generator
from fangcun.generation.sampling import SamplingSettings
from fangcun.model import Transformer


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Dropout off inside, and the mode that was set before back afterwards."""
    training = model.training
    if training:
        model.eval()
    try:
        yield
    finally:
        if training:
            model.train()


def check_max_new_tokens(value: object) -> int:
    """A whole number >= 0. Raises FangcunError."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise FangcunError(f"max_new_tokens is {value!r}, expected a whole number >= 0.")
    return value


def stream_ids(
    model: Transformer,
    prompt_ids: Sequence[int],
    settings: SamplingSettings,
    *,
    vocab_size: int,
    end_id: int,
    max_new_tokens: int = 256,
    seed: int | None = None,
    stop_ids: Collection[int] = (),
) -> Generator[int, None, None]:
    """Yield the ids that follow `prompt_ids`, at most `max_new_tokens`.

    Ends before an id of `stop_ids` or `end_id` (the end-of-document token, also the start for an empty prompt), which
    is not yielded. Ids >= `vocab_size` are never drawn. The repetition penalty covers the prompt and what was written.
    """
    check_max_new_tokens(max_new_tokens)
    block_size, n_rows = model.config.block_size, int(model.embedding.weight.shape[0])
    for index in prompt_ids:
        if not 0 <= index < n_rows:
            raise FangcunError(
                f"The prompt holds the id {index}, but the model knows ids 0 to {n_rows - 1}. Encode it with the model's own tokenizer."
            )
    if len(prompt_ids) > block_size:
        warnings.warn(
            f"The prompt has {len(prompt_ids):,} tokens, the model reads at most {block_size:,}: only the last {block_size:,} are used.",
            stacklevel=2,
        )
    sample = Sample(
        prompt_ids,
        settings,
        vocab_size=vocab_size,
        block_size=block_size,
        end_id=end_id,
        stop_ids=stop_ids,
        max_new_tokens=max_new_tokens,
        generator=make_generator(seed),
    )
    if sample.full:
        return
    with evaluation_mode(model):
        rows = Rows(model, 1, min(block_size, len(sample.context) + max_new_tokens))
        unread: Sequence[int] = sample.context
        while True:
            index = sample.choose(rows.read(0, unread))
            if index is None:
                return
            yield index
            if sample.full:
                return
            unread = [index]
            if sample.shorten():
                rows.forget(0)
                unread = sample.context


def generate_ids(
    model: Transformer,
    prompt_ids: Sequence[int],
    *,
    vocab_size: int,
    end_id: int,
    max_new_tokens: int = 256,
    temperature: float = 0.8,
    top_k: int | None = 50,
    top_p: float = 1.0,
    repetition_penalty: float = 1.0,
    seed: int | None = None,
    stop_ids: Collection[int] = (),
    on_token: Callable[[int], Any] | None = None,
) -> list[int]:
    """The ids that follow `prompt_ids`, without the one that ended them.

    `on_token` is called with each id as it is drawn; when it returns True, that id is the last. The rest is as in
    `stream_ids`. Raises FangcunError, which names the argument that is wrong.
    """
    settings = SamplingSettings(temperature, top_k, top_p, repetition_penalty)
    ids: list[int] = []
    stream = stream_ids(
        model,
        prompt_ids,
        settings,
        vocab_size=vocab_size,
        end_id=end_id,
        max_new_tokens=max_new_tokens,
        seed=seed,
        stop_ids=stop_ids,
    )
    with contextlib.closing(stream):
        for index in stream:
            ids.append(index)
            if on_token is not None and on_token(index) is True:
                break
    return ids
