"""A model for fewer tokens: the rows of embedding and head that a smaller tokenizer keeps, in its order."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fangcun.errors import ConfigError, FangcunError
from fangcun.model.io import load_model, model_of, save_model
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


def slice_model_folder(
    source: str | Path, kept_ids: Sequence[int], out: str | Path, *, eos_id: int, pad_id: int | None, bos_id: int | None
) -> Transformer:
    """Write `source`, a model folder, for fewer tokens into `out`, in its own number format; `eos_id` … are new ids.

    Other settings of generation_config.json come along, their ids mapped. The tokenizer is the caller's to write.
    Raises FangcunError, as `load_model` and `slice_vocabulary` do.
    """
    source, out = Path(source), Path(out)
    dtype = _stored_dtype(source)
    model = slice_vocabulary(load_model(source, dtype=dtype), kept_ids)
    save_model(model, out, dtype, eos_id=eos_id, pad_id=pad_id, bos_id=bos_id)
    new_ids = {int(old): new for new, old in enumerate(kept_ids)}
    file = out / "generation_config.json"
    written = json.loads(file.read_text(encoding="utf-8"))
    theirs = _generation_settings(source / "generation_config.json", new_ids)
    file.write_text(json.dumps(written | theirs, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
    return model


def _stored_dtype(folder: Path) -> torch.dtype:
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    found = getattr(torch, str(raw.get("dtype") or raw.get("torch_dtype") or "float32"), None)
    return found if isinstance(found, torch.dtype) and found.is_floating_point else torch.float32


def _generation_settings(file: Path, new_ids: dict[int, int]) -> dict[str, Any]:
    """The settings of a generation_config.json with ids mapped; ids that are gone are left out."""
    if not file.is_file():
        return {}
    settings: dict[str, Any] = {}
    for key, value in json.loads(file.read_text(encoding="utf-8")).items():
        if key.endswith("_token_id"):
            ids = [new_ids[i] for i in (value if isinstance(value, list) else [value]) if i in new_ids]
            if ids:
                settings[key] = ids if isinstance(value, list) else ids[0]
        elif not key.endswith("tokens"):  # suppress_tokens and the like: lists of old ids
            settings[key] = value
    return settings
