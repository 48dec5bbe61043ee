"""The folder that transformers opens, without the state of training: weights in another number format, in shards."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from fangcun.artifacts import Manifest, write_artifact
from fangcun.errors import ConfigError, FangcunError
from fangcun.export.card import model_card
from fangcun.export.facts import gather
from fangcun.export.source import DTYPES, Source, copy_files, read_json, write_json
from fangcun.model import write_tensors

KIND = "export"
DEFAULT_SHARD_BYTES = 2_000_000_000
_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "added_tokens.json",
    "tokenizer.model", "vocab.json", "merges.txt", "generation_config.json",
)  # fmt: skip
_SIZE = re.compile(r"\s*([\d.]+)\s*([KMGT]?)(i?)B?\s*", re.IGNORECASE)
_BYTES_OF = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


def export_hf(
    path: str | Path,
    out: str | Path,
    *,
    dtype: str | None = None,
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
) -> Path:
    """Write a model as a Hugging Face folder with a model card, whole or not at all. Returns `out`.

    Args:
        path: a run (its newest checkpoint), a checkpoint, or a Hugging Face folder.
        out: is made; an earlier export there is replaced, anything else is refused.
        dtype: "f32", "bf16", "f16"; None: as stored.
        max_shard_bytes: above this the weights go to several files with an index. A single tensor is never cut.

    At most one shard of weights is in memory at a time. Raises FangcunError.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(f"--dtype {dtype}: a Hugging Face folder takes {', '.join(DTYPES)}. For q8_0: --to gguf.")
    out = Path(out)
    with Source(path) as source:
        wanted = None if dtype is None else DTYPES[dtype]
        names = [name for name in source.names if not _is_double_of_tied(source, name)]
        manifest = Manifest(KIND, settings={"to": "hf", "dtype": dtype, "from": str(source.folder)})
        with write_artifact(out, manifest) as folder:
            shards = _shards(source, names, wanted, max_shard_bytes)
            _write_weights(source, folder, shards, wanted)
            copy_files(source.folder, folder, _TOKENIZER_FILES)
            config = read_json(source.folder / "config.json")
            if wanted is not None:
                config["dtype"] = config["torch_dtype"] = str(wanted).removeprefix("torch.")
            write_json(folder / "config.json", config)
            if not (folder / "generation_config.json").is_file():
                keys = ("bos_token_id", "eos_token_id", "pad_token_id")
                write_json(folder / "generation_config.json", {k: v for k in keys if (v := config.get(k)) is not None})
            card = model_card(gather(source), name=out.name, form="hf", dtype=dtype)
            (folder / "README.md").write_text(card, encoding="utf-8", newline="\n")
    return out


def parse_size(text: str) -> int:
    """Bytes of a size such as 2GB, 500MB, 1.5GiB or 4096. Raises ConfigError."""
    match = _SIZE.fullmatch(text)
    try:
        assert match
        number, unit, binary = float(match[1]), match[2].upper(), bool(match[3])
        size_bytes = int(number * (1024 if binary else 1000) ** " KMGT".index(unit or " "))
        assert size_bytes > 0
    except (AssertionError, ValueError):
        raise ConfigError(f"--max-shard-size {text}: expected a size above 0 such as 2GB, 500MB or 1GiB.") from None
    return size_bytes


def _is_double_of_tied(source: Source, name: str) -> bool:
    return source.config.tie_embeddings and name in ("lm_head.weight", "embed_out.weight")


def _size_bytes(source: Source, name: str, dtype: torch.dtype | None) -> int:
    numbers = 1
    for length in source.shape(name):
        numbers *= length
    return numbers * (dtype.itemsize if dtype is not None else _BYTES_OF.get(source.stored_dtype(name), 8))


def _shards(source: Source, names: Iterable[str], dtype: torch.dtype | None, limit: int) -> list[list[str]]:
    """Names in the order given, a new shard where the next tensor would go over the limit."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name in names:
        size_bytes = _size_bytes(source, name, dtype)
        if shards[-1] and filled + size_bytes > limit:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size_bytes
    if not shards[-1]:
        raise FangcunError(f"{source.folder} has no weights to export.")
    return shards


def _write_weights(source: Source, folder: Path, shards: list[list[str]], dtype: torch.dtype | None) -> None:
    weight_map: dict[str, str] = {}
    total_bytes = 0
    for number, names in enumerate(shards, 1):
        one = len(shards) == 1
        file = "model.safetensors" if one else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {name: source.tensor(name, dtype).contiguous() for name in names}
        total_bytes += sum(tensor.nbytes for tensor in tensors.values())
        write_tensors(tensors, folder / file)
        weight_map |= dict.fromkeys(names, file)
    if len(shards) > 1:
        index: dict[str, Any] = {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
        write_json(folder / "model.safetensors.index.json", index)
