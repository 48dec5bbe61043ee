"""Which tokenizer a path means: the format, told by names and first bytes, and the files that belong to it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fangcun.errors import FangcunError
from fangcun.tokenizer.hf_folder import ADDED_FILE, CONFIG_FILE, SPECIAL_FILE, TEMPLATE_FILE, TOKENIZER_FILE

Format = Literal["tokenizer.json", "vocab.json + merges.txt", "tiktoken ranks", "sentencepiece"]

EXPECTED = (
    "Expected a file or a folder of one of these: tokenizer.json (Hugging Face), vocab.json with merges.txt (GPT-2), "
    "a tiktoken rank file (*.tiktoken), a sentencepiece model (*.model), or a run folder with tokenizer/ in it."
)

_COMPANIONS = (CONFIG_FILE, SPECIAL_FILE, ADDED_FILE, TEMPLATE_FILE)
_RANK_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n")


@dataclass(frozen=True)
class Source:
    """A tokenizer on disk. `files` holds the vocabulary files first, then the configuration files beside them."""

    format: Format
    folder: Path
    vocabulary: tuple[Path, ...]

    @property
    def files(self) -> list[Path]:
        """Every file that an import reads."""
        return [*self.vocabulary, *(file for name in _COMPANIONS if (file := self.folder / name).is_file())]


def locate(path: str | Path) -> Source:
    """Find out what `path` is. Raises FangcunError that lists what was expected."""
    path = Path(path).expanduser()
    if not path.exists():
        raise FangcunError(f"tokenizer.path: {path} does not exist. {EXPECTED}")
    if path.is_dir():
        return _in_folder(path)
    if path.name == "merges.txt" or (path.name == "vocab.json" and not _is_tokenizer_json(path)):
        return _in_pair(path)
    if _is_tokenizer_json(path):
        return Source("tokenizer.json", path.parent, (path,))
    head = _head(path)
    if _RANK_LINE.match(head):
        return Source("tiktoken ranks", path.parent, (path,))
    if head[:1] == b"\n" and b"\x00" not in head[:2] and path.suffix in (".model", ".spm", ".vocab", ""):
        return Source("sentencepiece", path.parent, (path,))
    raise FangcunError(f"tokenizer.path: {path} is no tokenizer that is known here. {EXPECTED}")


def _in_folder(folder: Path) -> Source:
    if (folder / TOKENIZER_FILE).is_file():
        return Source("tokenizer.json", folder, (folder / TOKENIZER_FILE,))
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return _in_pair(folder / "vocab.json")
    for pattern in ("*.tiktoken", "tokenizer.model", "*.model"):
        found = sorted(folder.glob(pattern))
        if len(found) > 1:
            names = ", ".join(file.name for file in found)
            raise FangcunError(f"tokenizer.path: {folder} holds several tokenizers ({names}). Name the file.")
        if found:
            return locate(found[0])
    if (folder / "tokenizer").is_dir():
        return _in_folder(folder / "tokenizer")
    raise FangcunError(f"tokenizer.path: {folder} holds no tokenizer that is known here. {EXPECTED}")


def _in_pair(file: Path) -> Source:
    vocabulary, merges = file.with_name("vocab.json"), file.with_name("merges.txt")
    for part in (vocabulary, merges):
        if not part.is_file():
            raise FangcunError(f"tokenizer.path: {part} is missing: vocab.json and merges.txt belong together.")
    return Source("vocab.json + merges.txt", file.parent, (vocabulary, merges))


def _is_tokenizer_json(path: Path) -> bool:
    # A vocab.json maps tokens to ids; a tokenizer.json has a model. Both may be large: look at the first bytes.
    return (
        path.suffix == ".json"
        and re.search(rb'^\s*\{\s*"(version|truncation|model)"\s*:\s*("\d|null|\{)', _head(path)) is not None
    )


def _head(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(4096)
    except OSError as error:
        raise FangcunError(f"tokenizer.path: {path} cannot be read: {error.strerror}. Check its rights.") from error
