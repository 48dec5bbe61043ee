"""A model for fewer tokens: the rows of embedding and head that a smaller tokenizer keeps, in its order."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from fangcun.errors import ConfigError, FangcunError
from fangcun.model.io import model_of
from fangcun.model.transformer import Transformer

_BY_TOKEN = ("embedding.weight", "head.weight")


def slice_vocabulary(
    model: Transformer, kept_ids: Sequence[int] | torch.Tensor, *, padding_multiple: int = 1
) -> Transformer:
    """A model whose token i is `model`'s token `kept_ids[i]`; the logits of kept tokens are those of `model`.

    Args:
        model: stays as it is; what is not sliced is shared with the result.
        kept_ids: old ids in the order of the new ones, each once.
        padding_multiple: rows are rounded up to it; rows added are zero. 1: none is added, and the old model's own
            rows beyond its tokenizer's ids are gone.

    Raises:
        FangcunError: an id that the model has no row for.
        ConfigError: a model whose other weights depend on ids (n-gram tables).
    """
    config = model.config
    if config.ngram_rows is not None:
        raise ConfigError(
            "model.ngram_rows is set: its tables are indexed by ids, and with other ids their rows would mean other text. Only models without it can be sliced."
        )
    kept = torch.as_tensor(kept_ids, dtype=torch.int64).flatten()
    rows = config.padded_vocab_size or 0
    if len(kept) == 0 or int(kept.min()) < 0 or int(kept.max()) >= rows:
        raise FangcunError(
            f"The tokenizer has ids up to {int(kept.max()) if len(kept) else '(none)'}, but the model has rows for {rows:,}. Do tokenizer and model belong together?"
        )
    if len(kept.unique()) != len(kept):
        raise FangcunError("kept_ids names the same id twice, expected each once.")
    padded = -(-len(kept) // padding_multiple) * padding_multiple
    state = dict(model.state_dict())
    for name in _BY_TOKEN:
        if name in state:
            taken = state[name].index_select(0, kept.to(state[name].device))
            state[name] = torch.nn.functional.pad(taken, (0, 0, 0, padded - len(kept)))
    sliced = dataclasses.replace(config, vocab_size=len(kept), padded_vocab_size=padded)
    return model_of(sliced, state, state["embedding.weight"].device)
