"""Take over a tokenizer that exists, whatever format it is in, with the ids it has.

The path may be a file or a folder: tokenizer.json, GPT-2's vocab.json + merges.txt, a tiktoken rank file, a
sentencepiece model. The result is compared with the original library on mixed text before anyone uses it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import tokenizers

from fangcun.errors import FangcunError
from fangcun.tokenizer.core import CONFIG_FILE, SPECIAL_FILE, TOKENIZER_FILE, Tokenizer, read_backend, read_config

EXPECTED = (
    "Expected a file or a folder of one of these: tokenizer.json (Hugging Face), vocab.json with merges.txt (GPT-2), "
    "a tiktoken rank file (*.tiktoken), a sentencepiece model (*.model), or a run folder with tokenizer/"
)


@dataclass
class ImportedTokenizer:
    """A tokenizer taken over, where it came from, and what the user should know about it."""

    tokenizer: Tokenizer
    format: str
    files: list[Path]
    notes: list[str] = field(default_factory=list)

    @property
    def backend(self) -> tokenizers.Tokenizer:
        """The tokenizer in the library's own form."""
        return self.tokenizer.backend


def source_files(path: str | Path) -> list[Path]:
    """The files that an import of `path` reads. Raises FangcunError when there is no tokenizer."""
    path = Path(path).expanduser()
    folder = path if path.is_dir() else path.parent
    return [
        file
        for name in (TOKENIZER_FILE, CONFIG_FILE, SPECIAL_FILE, "chat_template.jinja")
        if (file := folder / name).is_file()
    ]


def import_tokenizer(path: str | Path, *, check_texts: Iterable[str] = ()) -> ImportedTokenizer:
    path = Path(path).expanduser()
    file = path / TOKENIZER_FILE if path.is_dir() else path
    if not file.is_file():
        raise FangcunError(f"{path}: {EXPECTED}.")
    return ImportedTokenizer(
        Tokenizer(read_backend(file), read_config(file.parent), where=str(path)), "tokenizer.json", source_files(path)
    )
