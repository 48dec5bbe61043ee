"""What is exported: a model folder whose tensors are read one at a time, so that no model is ever whole in memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from fangcun.artifacts import find_weights
from fangcun.config import ModelConfig
from fangcun.errors import ConfigError, FangcunError
from fangcun.model import read_config, weight_files
from fangcun.tokenizer import Tokenizer

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
"""The number formats that both kinds of export know, under llama.cpp's names."""

_F16_MAX = 65504.0


class Source:
    """A run's newest checkpoint, a checkpoint, or a Hugging Face folder, open for reading."""

    def __init__(self, path: str | Path) -> None:
        """Raises FangcunError when it is no model, and ConfigError for a model that only Fangcun can open."""
        self.given = Path(path)
        self.folder = find_weights(self.given)
        self.config: ModelConfig = read_config(self.folder)
        if not self.config.exportable:
            raise ConfigError(
                f"{self.folder} says exportable: false: its shape fits no family that other tools know, so it opens only "
                "in Fangcun. Train with a shape of a family (and exportable: true) to export it."
            )
        if not (self.folder / "tokenizer.json").is_file():
            raise FangcunError(
                f"{self.folder} has no tokenizer.json, and a model without its tokenizer can neither read nor write "
                "text. Put the model's tokenizer.json there."
            )
        self.tokenizer = Tokenizer.load(self.folder)
        self._open = ExitStack()
        self._files: dict[str, Any] = {}
        for file in weight_files(self.folder):
            try:
                opened = self._open.enter_context(safe_open(file, framework="pt"))
                self._files |= dict.fromkeys(opened.keys(), opened)
            except (SafetensorError, OSError) as error:
                raise FangcunError(
                    f"{file} cannot be read ({error}): the file is damaged or incomplete. Fetch or write it again."
                ) from error

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.clear()
        self._open.close()

    @property
    def names(self) -> list[str]:
        """Names of the tensors, in the order of the files."""
        return list(self._files)

    def shape(self, name: str) -> list[int]:
        """The shape of a tensor, without reading it. Raises FangcunError when there is none of this name."""
        return list(self._file(name).get_slice(name).get_shape())

    def stored_dtype(self, name: str) -> str:
        """The number format of a tensor in the file, in safetensors' words: F32, BF16, F16."""
        return str(self._file(name).get_slice(name).get_dtype())

    def tensor(self, name: str, dtype: torch.dtype | None = None) -> torch.Tensor:
        """A tensor in memory of its own, converted to `dtype`. Raises FangcunError, also for numbers too large for it."""
        found: torch.Tensor = self._file(name).get_tensor(name)
        if dtype is None or not found.is_floating_point():
            return found.clone()
        if dtype == torch.float16:
            refuse_overflow(found, name)
        return found.to(dtype, copy=True)

    def _file(self, name: str) -> Any:
        if name not in self._files:
            raise FangcunError(
                f"{self.folder}: the weights lack {name}. Expected a complete checkpoint of the shape that config.json states."
            )
        return self._files[name]


def refuse_overflow(tensor: torch.Tensor, name: str) -> None:
    """Raise FangcunError when a number of `tensor` would become infinite in float16."""
    largest = float(tensor.abs().max()) if tensor.numel() else 0.0
    if largest > _F16_MAX:
        raise FangcunError(
            f"{name} holds {largest:.4g}, and float16 ends at {_F16_MAX:,.0f}. Export with --dtype bf16 or f32."
        )


def copy_files(source: Path, target: Path, names: Iterable[str]) -> None:
    """Copy those of the files that are there, contents only."""
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one where there is no such file. Raises FangcunError for anything else."""
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FangcunError(f"{file} is not JSON ({error}).") from error
    if not isinstance(content, dict):
        raise FangcunError(f"{file} holds a {type(content).__name__}, expected an object.")
    return content


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write an object as readable JSON."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8", newline="\n")
