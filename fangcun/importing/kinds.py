"""What a path is that someone wants taken in."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fangcun.artifacts import MANIFEST, list_checkpoints
from fangcun.errors import ConfigError, FangcunError
from fangcun.importing.litgpt import CONFIG, WEIGHTS

Kind = Literal["huggingface", "nanogpt", "litgpt", "recipe", "config.json"]

KNOWN = (
    "Known are: a Hugging Face folder (config.json and weights), a nanoGPT ckpt.pt or config/*.py, a litgpt folder "
    f"({WEIGHTS} and {CONFIG}) or YAML, and a config.json."
)
_HINTS = {
    ".safetensors": "the weights alone do not say their shape: name the folder, which has a config.json too",
    ".bin": "the weights alone do not say their shape: name the folder, which has a config.json too",
    ".gguf": "GGUF files are written here (fangcun export), not read: take the model's Hugging Face folder",
    ".pkl": "a pickle can run code when it is opened, so none is. Characters of nanoGPT: --characters-from input.txt",
    ".ckpt": "a checkpoint of Lightning's holds code. litgpt writes lit_model.pth",
}


def find_kind(path: Path) -> tuple[Kind, Path]:
    """The kind of `path`, and the file or folder that its reader wants. Raises ConfigError or FangcunError."""
    if not path.exists():
        raise ConfigError(f"{path} does not exist. {KNOWN}")
    if path.is_dir():
        return _of_folder(path)
    if path.suffix == ".pt":
        return "nanogpt", path
    if path.suffix == ".pth":
        if path.name != WEIGHTS:
            raise ConfigError(f"{path}: expected litgpt's {WEIGHTS}. {KNOWN}")
        return "litgpt", path.parent
    if path.name == CONFIG:
        return "litgpt", path.parent
    if path.suffix in (".py", ".yaml", ".yml"):
        return "recipe", path
    if path.suffix == ".json":
        return "config.json", path
    hint = _HINTS.get(path.suffix)
    raise ConfigError(f"{path}: {hint}. {KNOWN}" if hint else f"{path} is nothing that can be taken in. {KNOWN}")


def _of_folder(path: Path) -> tuple[Kind, Path]:
    if (path / WEIGHTS).is_file() or (path / CONFIG).is_file():
        return "litgpt", path
    if list_checkpoints(path) or (path / MANIFEST).is_file():
        raise ConfigError(f"{path} is of Fangcun's own making and works as it is: fangcun generate {path}")
    if (path / "config.json").is_file():
        return "huggingface", path
    if (path / "ckpt.pt").is_file():
        return "nanogpt", path / "ckpt.pt"
    if any(path.glob("*.safetensors")) or any(path.glob("pytorch_model*.bin")):
        raise FangcunError(f"{path} has weights but no config.json, which says their shape. Fetch it too.")
    raise ConfigError(f"{path} holds no model. {KNOWN}")
