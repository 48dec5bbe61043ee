"""Ids from a model, one after the other: prefill the prompt, then one position a step over a KV cache.

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

import torch
from torch import Tensor, nn

from fangcun.errors import FangcunError
from fangcun.generation.sampling import SamplingSettings, sample
from fangcun.model import KVCache, Transformer


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


def make_generator(seed: int | None) -> torch.Generator:
    """A generator on the CPU of its own, so that sampling never moves torch's global one. None: a fresh seed."""
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    elif not isinstance(seed, int) or isinstance(seed, bool) or not -(2**63) <= seed < 2**64:
        raise FangcunError(f"seed is {seed!r}, expected a whole number of at most 64 bits, or None.")
    else:
        generator.manual_seed(seed)
    return generator


def next_logits(model: Transformer, ids: Sequence[int], cache: KVCache) -> Tensor:
    """Read `ids` behind what the cache holds; float32 logits (padded_vocab_size,) for the id that follows them."""
    device = model.head_weight.device
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        hidden = model.hidden(torch.tensor([list(ids)], device=device), cache)
        # The head is applied to the last position alone: over a whole prompt it would cost more than the model.
        return model.logits(hidden[0, -1]).float()


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
    generator = make_generator(seed)
    block_size, rows = model.config.block_size, int(model.head_weight.shape[0])
    for index in prompt_ids:
        if not 0 <= index < rows:
            raise FangcunError(
                f"The prompt holds the id {index}, but the model knows ids 0 to {rows - 1}. Encode it with the model's own tokenizer."
            )
    if len(prompt_ids) > block_size:
        warnings.warn(
            f"The prompt has {len(prompt_ids):,} tokens, the model reads at most {block_size:,}: only the last {block_size:,} are used.",
            stacklevel=2,
        )
    if max_new_tokens == 0:
        return
    ends = {end_id, *stop_ids}
    context = list(prompt_ids[-block_size:]) if prompt_ids else [end_id]
    seen = torch.tensor(sorted(set(prompt_ids)), dtype=torch.int64, device=model.head_weight.device)
    with evaluation_mode(model):
        cache = KVCache(
            model.config,
            1,
            min(block_size, len(context) + max_new_tokens),
            model.head_weight.dtype,
            model.head_weight.device,
        )
        unread: Sequence[int] = context
        for count in range(1, max_new_tokens + 1):
            logits = next_logits(model, unread, cache)
            chosen = sample(logits, settings, vocab_size=vocab_size, seen_ids=seen, generator=generator)
            index = int(chosen)
            if index in ends:
                return
            yield index
            if count == max_new_tokens:
                return
            if settings.repetition_penalty != 1:
                seen = torch.cat([seen, chosen.view(1)])
            context.append(index)
            if len(context) > block_size:
                context = context[-max(1, block_size // 2) :]
                cache.truncate(0)
                unread = context
            else:
                unread = context[-1:]


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
