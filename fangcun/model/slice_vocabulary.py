"""A pretrained model for a smaller vocabulary: the rows of its embedding and head that a trimmed tokenizer keeps.

Nothing else changes, so the logits of kept ids are the old ones on every text of kept ids.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from fangcun.config import resolve_model
from fangcun.errors import FangcunError
from fangcun.model.io import model_of
from fangcun.model.transformer import Transformer


def slice_vocabulary(model: Transformer, kept: Sequence[int]) -> Transformer:
    """A model whose id `i` is the id `kept[i]` of `model`; in evaluation mode, on the same device, in the same precision.

    The rows that round the vocabulary up to the config's padding_multiple are those of the largest ids left out: a
    model's own padding first, which it has learned not to predict. Where every row is kept they are zero.

    Raises:
        FangcunError: an id that the model has no row for, the same id twice, or a model with n-gram embeddings, whose
            rows belong to runs of ids.
    """
    config, rows = model.config, model.embedding.weight.shape[0]
    wrong = sorted(index for index in set(kept) if not 0 <= index < rows)
    if wrong or len(set(kept)) != len(kept) or not kept:
        what = f"id {wrong[-1]}" if wrong else "an id twice" if kept else "no id"
        raise FangcunError(
            f"the vocabulary is sliced to {what}, expected different ids below the model's {rows:,} rows. Do tokenizer and model belong together?"
        )
    if model.ngrams is not None:
        raise FangcunError(
            "the model has n-gram embeddings (model.ngram_rows), whose rows are hashes of old ids. Only models without them can be sliced."
        )
    sliced = resolve_model(dataclasses.replace(config, vocab_size=len(kept), padded_vocab_size=None))
    assert sliced.padded_vocab_size is not None
    keep = set(kept)
    missing = sliced.padded_vocab_size - len(kept)
    spare = [index for index in range(rows - 1, -1, -1) if index not in keep][:missing]
    order = torch.tensor([*kept, *spare], device=model.embedding.weight.device)
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    for name in ("embedding.weight", "head.weight"):
        if name in state:
            table = state[name].new_zeros(sliced.padded_vocab_size, config.n_embd)
            table[: len(order)] = state[name][order]
            state[name] = table
    return model_of(sliced, state, model.embedding.weight.device)
