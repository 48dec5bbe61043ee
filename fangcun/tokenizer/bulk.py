"""Documents to ids at full speed: flat arrays instead of lists, from the fastest encoder that gives the same ids.

The reference is `tokenizers`. A character vocabulary is a table over code points; other vocabularies are read by
`fastokens` where it is installed. Either is used only after it gave the ids of the reference on the texts of
`fangcun.tokenizer.bulk_check`, so that which one ran cannot be told from what it wrote.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from typing import Any, Literal

import numpy as np
from tokenizers import models

from fangcun.errors import ConfigError
from fangcun.tokenizer.bulk_check import difference, safe_characters
from fangcun.tokenizer.core import Tokenizer

EncoderName = Literal["auto", "tokenizers", "fastokens"]

FAST_FROM_BYTES = 4_000_000
"""Below this, loading and checking fastokens takes about as long as `tokenizers` takes for the whole text."""
_EVERY_CHARACTER = {
    "type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class FlatIds:
    """Ids of several texts, end to end."""

    ids: np.ndarray
    """uint32, all texts."""
    lengths: np.ndarray
    """Ids of each text, int64."""


Encode = Callable[[Sequence[str]], FlatIds]
"""Ids of documents: nothing added, special tokens' strings read as text. May be called from several threads."""


@dataclass(frozen=True, slots=True)
class BulkEncoder:
    """An encoder of documents and how it likes to be run."""

    name: str
    """tokenizers, fastokens or characters."""
    encode: Encode
    in_threads: bool
    """It works outside of Python's lock on one core a call: threads do, no processes are needed."""


def code_points(text: str) -> np.ndarray:
    """The code points of a text, uint32."""
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")


def library_encoder(tokenizer: Tokenizer) -> BulkEncoder:
    """The reference: `tokenizers`."""

    def encode(texts: Sequence[str]) -> FlatIds:
        lists = tokenizer.encode_documents(texts)
        lengths = np.fromiter(map(len, lists), np.int64, len(lists))
        return FlatIds(np.fromiter(chain.from_iterable(lists), np.uint32, int(lengths.sum())), lengths)

    return BulkEncoder("tokenizers", encode, in_threads=False)


def character_encoder(tokenizer: Tokenizer) -> BulkEncoder | None:
    """A table from code point to id, for vocabularies that give each character one id; None for others."""
    if isinstance(tokenizer.backend.model, models.BPE) and tokenizer.backend.pre_tokenizer is not None:
        return None  # before a large file is parsed for nothing
    content = json.loads(tokenizer.content)
    vocabulary, unknown = content["model"].get("vocab"), content["model"].get("unk_token")
    if not _is_character_vocabulary(content) or unknown not in vocabulary:  # the order matters: Unigram has a list
        return None
    table = np.full(0x110000, vocabulary[unknown], dtype=np.uint32)
    for name, index in vocabulary.items():
        if len(name) == 1:
            table[ord(name)] = index

    def encode(texts: Sequence[str]) -> FlatIds:
        return FlatIds(table[code_points("".join(texts))], np.fromiter(map(len, texts), np.int64, len(texts)))

    return BulkEncoder("characters", encode, in_threads=True)


def _is_character_vocabulary(content: dict[str, Any]) -> bool:
    model = content["model"]
    if content["normalizer"] or not all(token["special"] for token in content["added_tokens"]):
        return False
    if model["type"] == "WordLevel":
        return content["pre_tokenizer"] == _EVERY_CHARACTER
    odd = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback", "ignore_merges")
    return (
        model["type"] == "BPE"
        and not model["merges"]
        and content["pre_tokenizer"] is None
        and not any(model.get(key) for key in odd)
    )


def fastokens_encoder(tokenizer: Tokenizer, sample: Iterable[str]) -> BulkEncoder | str:
    """fastokens with this vocabulary after a comparison with `tokenizers`, or why there is none, in a few words.

    Texts with rare characters that the two treat differently, or that were not compared, go to `tokenizers`, and so do
    those that fastokens cannot encode (its pattern matcher has limits).
    """
    try:
        import fastokens
    except ImportError:
        return "it is not installed (pip install fastokens)"
    try:
        backend = fastokens.Tokenizer.from_json_str(tokenizer.content)
    except Exception as error:  # whatever the library cannot read
        return f"it cannot read this tokenizer ({error})"
    reference = library_encoder(tokenizer).encode

    def alone(texts: Sequence[str]) -> FlatIds:
        ids, offsets = backend.encode_batch_flat(list(texts), split_special_tokens=True)
        return FlatIds(np.frombuffer(ids, dtype="<u4"), np.diff(np.frombuffer(offsets, dtype="<u8").astype(np.int64)))

    try:
        where = difference(tokenizer, alone, sample)
        safe = where or safe_characters(tokenizer, alone)
    except Exception as error:
        return f"it failed on a test text ({error})"
    if isinstance(safe, str):
        return f"its ids differ from those of tokenizers for {safe}"

    def encode(texts: Sequence[str]) -> FlatIds:
        try:
            if safe[code_points("".join(texts))].all():
                return alone(texts)
            return _by_text(texts, [bool(safe[code_points(text)].all()) for text in texts], alone, reference)
        except Exception:  # the library raises nothing narrower
            return reference(texts)

    return BulkEncoder("fastokens", encode, in_threads=True)


def _by_text(texts: Sequence[str], safe: list[bool], fast: Encode, reference: Encode) -> FlatIds:
    """Each text by `fast` where it is safe, else by `reference`."""
    parts: dict[int, np.ndarray] = {}
    for encode, wanted in ((fast, True), (reference, False)):
        places = [place for place, is_safe in enumerate(safe) if is_safe == wanted]
        flat = encode([texts[place] for place in places])
        parts.update(zip(places, np.split(flat.ids, np.cumsum(flat.lengths)), strict=False))
    in_order = [parts[place] for place in range(len(texts))]
    return FlatIds(np.concatenate(in_order), np.fromiter(map(len, in_order), np.int64, len(texts)))


def choose_encoder(
    tokenizer: Tokenizer, sample: Iterable[str], n_bytes: int, wanted: EncoderName = "auto"
) -> BulkEncoder:
    """The fastest encoder for `n_bytes` of text that gives the ids of `tokenizers`.

    It is compared on `sample`, text of the corpus, and on built-in strings. "auto" falls back to `tokenizers`, with a
    warning where fastokens is installed and will not do. Raises ConfigError where "fastokens" is wanted and cannot be had.
    """
    reference = library_encoder(tokenizer)
    if wanted == "tokenizers":
        return reference
    if wanted == "auto" and (characters := character_encoder(tokenizer)) is not None:
        return _unless_different(tokenizer, characters, sample) or reference
    if wanted == "auto" and n_bytes < FAST_FROM_BYTES:
        return reference
    found = fastokens_encoder(tokenizer, sample)
    if isinstance(found, BulkEncoder):
        return found
    if wanted == "fastokens":
        raise ConfigError(
            f"tokens.encoder is fastokens, but {found}. Use tokens.encoder: auto, which takes tokenizers then."
        )
    if find_spec("fastokens") is not None:
        warnings.warn(f"fastokens is not used: {found}. The text is encoded by tokenizers.", stacklevel=2)
    return reference


def _unless_different(tokenizer: Tokenizer, encoder: BulkEncoder, sample: Iterable[str]) -> BulkEncoder | None:
    where = difference(tokenizer, encoder.encode, sample)
    if where is None:
        return encoder
    warnings.warn(
        f"The table of characters is not used: its ids differ from those of tokenizers for {where}. "
        "The text is encoded by tokenizers.",
        stacklevel=3,
    )
    return None
