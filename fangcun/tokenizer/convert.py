"""Take over a tokenizer that exists, whatever format it is in, with the ids it has.

The path may be a file or a folder: tokenizer.json, GPT-2's vocab.json + merges.txt, a tiktoken rank file, a
sentencepiece model. A converted one is compared with the original library before anyone uses it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import tokenizers

from fangcun.tokenizer.core import Tokenizer
from fangcun.tokenizer.gpt2_files import convert_gpt2_files
from fangcun.tokenizer.hf_folder import read_backend, read_config
from fangcun.tokenizer.locate import Source, locate
from fangcun.tokenizer.rank_files import convert_ranks
from fangcun.tokenizer.self_check import compare
from fangcun.tokenizer.sentencepiece_model import convert_sentencepiece


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
    """The files that an import of `path` reads. Raises FangcunError when it is no tokenizer."""
    return locate(path).files


def import_tokenizer(path: str | Path, *, check_texts: Iterable[str] = ()) -> ImportedTokenizer:
    """Open the tokenizer at `path` (file or folder of any known format), ids unchanged.

    A conversion is checked against the original library on built-in mixed text and on `check_texts`. Raises
    FangcunError for an unknown format, a damaged file, or a conversion that gives other ids.
    """
    source = locate(path)
    imported = _convert(source, check_texts)
    tokenizer = imported.tokenizer
    if tokenizer.eos_token == "<|im_end|>" and (end := tokenizer.backend.token_to_id("<|endoftext|>")) is not None:
        imported.notes.append(
            f"Documents end with {tokenizer.eos_token} (id {tokenizer.eos_id}), as tokenizer_config.json says. For <|endoftext|> (id {end}) set its eos_token."
        )
    return imported


def _convert(source: Source, check_texts: Iterable[str]) -> ImportedTokenizer:
    config, added = read_config(source.folder)
    where = str(source.vocabulary[0])
    if source.format == "tokenizer.json":
        backend, notes = read_backend(source.vocabulary[0])
        return ImportedTokenizer(Tokenizer(backend, config, where=where), source.format, source.files, notes)
    if source.format == "vocab.json + merges.txt":
        backend, special, notes = convert_gpt2_files(source.vocabulary[0], source.vocabulary[1], added)
        return ImportedTokenizer(Tokenizer(backend, special | config, where=where), source.format, source.files, notes)
    if source.format == "tiktoken ranks":
        backend, special, notes, original = convert_ranks(source.vocabulary[0])
        tokenizer = Tokenizer(backend, special | config, where=where)
        if original is None:
            notes.append(
                "Not compared with tiktoken, which is not installed: pip install sentencepiece protobuf tiktoken."
            )
        else:
            notes += compare(tokenizer, original, "tiktoken", check_texts)
        return ImportedTokenizer(tokenizer, source.format, source.files, notes)
    converted = convert_sentencepiece(source.vocabulary[0], added)
    tokenizer = Tokenizer(converted.backend, converted.special | config, where=where)
    notes = converted.notes + compare(tokenizer, converted.original, "sentencepiece", check_texts, converted.tie)
    return ImportedTokenizer(tokenizer, source.format, source.files, notes)
