"""A model on disk: `config.json`, `model.safetensors` and `generation_config.json`, as transformers writes and reads them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from fangcun.config import ModelConfig
from fangcun.errors import FangcunError
from fangcun.model.families import from_hf_config, from_hf_state, to_hf_config, to_hf_state
from fangcun.model.families.names import State, listed
from fangcun.model.transformer import Transformer

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def save_model(
    model: Transformer,
    folder: str | Path,
    dtype: torch.dtype = torch.float32,
    *,
    eos_id: int | None = None,
    pad_id: int | None = None,
    bos_id: int | None = None,
    vocab_size: int | None = None,
    state: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write a folder that `transformers.AutoModelForCausalLM` opens as it is; the tokenizer is the caller's to write.

    Args:
        model: on any device; a tied head is not written twice.
        folder: is made where it is not there.
        dtype: of the weights in the file.
        eos_id: end of document, where generation stops.
        pad_id: padding.
        bos_id: beginning of document, where there is one.
        vocab_size: ids that the tokenizer has, where the model has rows for more; default: the config's vocab_size.
        state: weights to write instead of the model's own, under the same names: a copy, or what was gathered from shards.

    Raises:
        ConfigError: the config's family cannot express the model and it does not say `exportable: false`.
        FangcunError: the files cannot be written.
    """
    folder = Path(folder)
    config = to_hf_config(model.config, eos_id=eos_id, pad_id=pad_id, bos_id=bos_id, dtype=dtype)
    own = model.state_dict() if state is None else state
    hf_state = to_hf_state(model.config, {name: tensor.detach() for name, tensor in own.items()})
    # Cut and transposed views become tensors of their own: safetensors takes no shared memory.
    whole = {name: _stored(tensor, dtype) for name, tensor in hf_state.items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(whole, folder / WEIGHTS)
    _write_json(folder / "config.json", config)
    ids = {"bos_token_id": bos_id, "eos_token_id": eos_id, "pad_token_id": pad_id}
    generation: dict[str, Any] = {name: value for name, value in ids.items() if value is not None}
    rows, n_ids = model.config.padded_vocab_size, vocab_size or model.config.vocab_size
    if rows and n_ids and n_ids < rows:
        # Rows beyond the tokenizer's ids are no tokens; we never choose them, and so transformers does not either.
        generation["suppress_tokens"] = list(range(n_ids, rows))
    _write_json(folder / "generation_config.json", generation)


def write_tensors(tensors: Mapping[str, torch.Tensor], path: str | Path) -> None:
    """Write a safetensors file. Raises FangcunError with the path when it cannot be written, as on a full disk."""
    try:
        save_file(dict(tensors), path, metadata={"format": "pt"})
    except (SafetensorError, OSError) as error:
        raise FangcunError(f"cannot write {path}: {error} (disk full?)") from error


def read_tensors(path: str | Path) -> State:
    """All tensors of a safetensors file, in memory of their own: the file is closed and may be renamed or replaced.

    Raises FangcunError.
    """
    try:
        with safe_open(path, framework="pt") as file:
            # What safe_open gives is a window on the file, which Windows keeps from being renamed while it is open.
            return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise FangcunError(
            f"{path} cannot be read ({error}): the file is damaged or incomplete. Fetch or write it again."
        ) from error


def read_config(folder: str | Path) -> ModelConfig:
    """The resolved ModelConfig of a model folder. Raises FangcunError."""
    return from_hf_config(_read_json(Path(folder) / "config.json"))


def load_model(
    folder: str | Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Transformer:
    """A Transformer in evaluation mode from a folder of ours or of a supported Hugging Face family.

    Args:
        folder: with config.json and safetensors, in one file or in shards.
        device: where the parameters go.
        dtype: that they are converted to.

    Raises:
        FangcunError: no such folder, no safetensors, a tensor missing, left over or of another shape, a config that
            Fangcun cannot express.
    """
    folder = Path(folder)
    config, state = _read_state(folder, read_config(folder), device, dtype)
    return model_of(config, state, device, check=lambda model: check_state(folder, model, state))


def model_of(
    config: ModelConfig,
    state: Mapping[str, torch.Tensor],
    device: torch.device | str,
    *,
    check: Callable[[Transformer], None] | None = None,
) -> Transformer:
    """A Transformer in evaluation mode whose parameters are the tensors of `state` themselves, which lie on `device`.

    check: called with the model before it takes them.
    """
    with torch.device("meta"):
        model = Transformer(config)
    if check is not None:
        check(model)
    model.load_state_dict(state, assign=True)
    if model.rotary is not None:
        model.rotary.build(config.block_size, device)
    return model.eval()


def load_weights(model: Transformer, folder: str | Path) -> None:
    """Copy the weights of a folder into a model of the same shape, in place, keeping its device and types.

    Raises FangcunError, as `load_model` does, also when the shapes of folder and model differ.
    """
    folder = Path(folder)
    _, state = _read_state(folder, read_config(folder), "cpu", None)
    check_state(folder, model, state)
    model.load_state_dict(state)


def _read_state(
    folder: Path, config: ModelConfig, device: torch.device | str, dtype: torch.dtype | None
) -> tuple[ModelConfig, State]:
    """The weights of a folder under our names, each contiguous, and the config that they fit."""
    hf: State = {}
    for file in weight_files(folder):
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - not a dict
                    # A copy: what safe_open gives is a window on the file, which Windows keeps from being renamed
                    # while it is open, and whose pages change when the file is written over.
                    hf[name] = tensors.get_tensor(name).to(device=device, dtype=dtype, copy=True)
        except (SafetensorError, OSError) as error:
            raise FangcunError(
                f"{file} cannot be read ({error}): the file is damaged or incomplete. Fetch or write it again."
            ) from error
    try:
        config, state = from_hf_state(config, hf)
    except FangcunError as error:
        raise type(error)(f"{folder}: {error}") from error
    return config, {name: tensor.contiguous() for name, tensor in state.items()}


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder, in order. Raises FangcunError, also for a folder that has pickles only."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        places = _read_json(folder / INDEX).get("weight_map")
        if not isinstance(places, dict) or not places:
            raise FangcunError(f"{folder / INDEX} names no shards: expected an object weight_map. Fetch it again.")
        shards = sorted({str(name) for name in places.values()})
        for name in shards:
            if not (folder / name).is_file():
                raise FangcunError(f"{folder / name} is missing, {INDEX} names it. Fetch the missing shard.")
        return [folder / name for name in shards]
    pickled = [*folder.glob("pytorch_model*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]
    if pickled:
        raise FangcunError(
            f"{folder} has its weights in {pickled[0].name}, a pickle, which can run code when opened and is not read here. "
            f"Take it in first, which reads its tensors alone: fangcun import {folder}"
        )
    raise FangcunError(f"{folder} has no weights: expected {WEIGHTS}, or {INDEX} with its shards.")


def check_state(folder: Path, model: Transformer, state: Mapping[str, torch.Tensor]) -> None:
    """Raise FangcunError unless `state`, read from `folder`, has the names and shapes of the model."""
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    missing, extra = wanted.keys() - state.keys(), state.keys() - wanted.keys()
    if missing or extra:
        parts = [f"lacks {listed(missing)}"] * bool(missing) + [f"has {listed(extra)} too many"] * bool(extra)
        raise FangcunError(f"{folder} does not fit the model: it {' and '.join(parts)}.")
    wrong = [
        f"{n} is {tuple(state[n].shape)}, expected {shape}" for n, shape in wanted.items() if state[n].shape != shape
    ]
    if wrong:
        raise FangcunError(
            f"{folder} does not fit the model: {'; '.join(wrong[:4])}. Does config.json belong to these weights?"
        )


def _stored(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    moved = tensor.to(device="cpu", dtype=dtype)
    return (
        moved.clone(memory_format=torch.contiguous_format)
        if moved.data_ptr() == tensor.data_ptr()
        else moved.contiguous()
    )


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise FangcunError(f"{file} does not exist. Expected a folder with config.json and safetensors weights.")
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FangcunError(f"{file} is not JSON ({error}).") from error
    if not isinstance(raw, dict):
        raise FangcunError(f"{file} holds a {type(raw).__name__}, expected an object.")
    return raw


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
