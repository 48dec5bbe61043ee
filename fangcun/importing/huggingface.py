"""A Hugging Face folder of the families we know, its weights as safetensors or as `pytorch_model*.bin`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from fangcun.errors import FangcunError
from fangcun.importing.foreign import ForeignModel, build_model
from fangcun.importing.pickles import as_state, common_dtype, open_pickle
from fangcun.model import load_model, read_config
from fangcun.model.families import from_hf_state

_PICKLE = "pytorch_model.bin"
_KEPT = ("eos_token_id", "suppress_tokens")
_REMEDY = "Fetch it again, or take a copy of the model with safetensors."


def read_huggingface(folder: Path) -> ForeignModel:
    """The model of `folder`. Raises FangcunError: an unknown architecture, missing or damaged shards, unsafe pickles."""
    config = read_config(folder)
    kept = _generation(folder)
    files = [folder / "config.json"]
    safetensors = sorted(folder.glob("model*.safetensors"))
    pickles = _pickles(folder)
    if safetensors or (folder / "model.safetensors.index.json").is_file() or not pickles:
        model = load_model(folder)
        return ForeignModel(
            model, "Hugging Face folder", folder, files + safetensors, _dtype(safetensors), generation=kept
        )
    hf: dict[str, torch.Tensor] = {}
    for file in pickles:
        hf |= as_state(open_pickle(file, remedy=_REMEDY), file)
    dtype = common_dtype(hf)
    try:
        config, state = from_hf_state(config, hf)
    except FangcunError as error:
        raise type(error)(f"{folder}: {error}") from error
    model = build_model(config, state, folder)
    return ForeignModel(model, "Hugging Face folder", folder, files + pickles, dtype, generation=kept)


def _pickles(folder: Path) -> list[Path]:
    """pytorch_model.bin, or the shards that its index names. Raises FangcunError for one that is missing."""
    if (folder / _PICKLE).is_file():
        return [folder / _PICKLE]
    index = folder / f"{_PICKLE}.index.json"
    places = _read_object(index).get("weight_map", {})
    if not isinstance(places, dict):
        raise FangcunError(f"{index} names no shards: expected an object weight_map. {_REMEDY}")
    names = sorted({str(name) for name in places.values()})
    for name in names:
        if not (folder / name).is_file():
            raise FangcunError(f"{folder / name} is missing, {index.name} names it. Fetch the missing shard.")
    return [folder / name for name in names]


def _dtype(files: list[Path]) -> torch.dtype:
    """As `common_dtype`, from the heads of safetensors files."""
    kinds: set[str] = set()
    for file in files:
        try:
            with safe_open(file, framework="pt") as tensors:
                kinds |= {tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118 - not a dict
        except (SafetensorError, OSError) as error:
            raise FangcunError(
                f"{file} cannot be read ({error}): the file is damaged or incomplete. {_REMEDY}"
            ) from error
    kinds = {kind for kind in kinds if "F" in kind}  # old files hold masks too
    only = kinds.pop() if len(kinds) == 1 else ""
    return {"BF16": torch.bfloat16, "F16": torch.float16}.get(only, torch.float32)


def _generation(folder: Path) -> dict[str, Any]:
    """The ids that end a text and those never chosen: from generation_config.json, or else config.json."""
    settings = _read_object(folder / "generation_config.json")
    ends = settings.get("eos_token_id", _read_object(folder / "config.json").get("eos_token_id"))
    return {
        key: value for key, value in ({**settings, "eos_token_id": ends}).items() if key in _KEPT and value is not None
    }


def _read_object(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise FangcunError(f"{file} cannot be read ({error}). Expected a JSON object.") from error
    if not isinstance(found, dict):
        raise FangcunError(f"{file} holds a {type(found).__name__}, expected a JSON object.")
    return found
