"""Tokenizers side by side: how short they make text of six kinds and one's own, what they cost, whether text comes back.

The six kinds are short texts that come with the installation (fangcun/tokenizer/texts/README.md says where from).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from fangcun.tokenizer.core import Tokenizer
from fangcun.tokenizer.decoding import byte_table
from fangcun.tokenizer.gb2312 import level_1, level_2
from fangcun.tokenizer.report import measure
from fangcun.tokenizer.self_check import RARE

KINDS = ("modern", "classical", "poetry", "english", "code", "digits")
"""Modern Chinese, classical Chinese, Chinese poetry, English, program code, numbers."""

BODY_LAYERS = 8
LONGEST = 10
_HAN = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF))


def sample_text(kind: str) -> str:
    """The text of one of KINDS that comes with the installation."""
    return (resources.files("fangcun.tokenizer") / "texts" / f"{kind}.txt").read_text(encoding="utf-8")


def body_parameters(width: int) -> int:
    """Parameters of the small model that embeddings are compared with: 8 layers of 12 width² (attention 4, MLP 8)."""
    return BODY_LAYERS * 12 * width**2


def report_card(
    tokenizers: Mapping[str, Tokenizer], texts: Callable[[], Iterable[str]] | None = None, *, width: int = 512
) -> dict[str, Any]:
    """The card as plain data, for JSON, tables and plots.

    Args:
        tokenizers: by the name to show.
        texts: gives the documents of the user's own text, once for each tokenizer. None: there is none.
        width: of the embedding (n_embd) whose share is told.
    """
    return {
        "width": width,
        "body_layers": BODY_LAYERS,
        "body_parameters": body_parameters(width),
        "tokenizers": [_one(name, tokenizer, texts, width) for name, tokenizer in tokenizers.items()],
    }


def names_of(paths: Iterable[str | Path]) -> dict[str, str | Path]:
    """A short name for each path: its last part that is not a file's usual name; with its parents where two are alike."""
    found: dict[str, str | Path] = {}
    for path in paths:
        parts = [part for part in Path(path).resolve().parts if part not in ("tokenizer.json", "tokenizer")]
        depth = 1
        while "/".join(parts[-depth:]) in found and depth < len(parts):
            depth += 1
        found["/".join(parts[-depth:])] = path
    return found


def _one(name: str, tokenizer: Tokenizer, texts: Callable[[], Iterable[str]] | None, width: int) -> dict[str, Any]:
    kinds = {kind: measure(tokenizer, [sample_text(kind)]) for kind in KINDS}
    own = None
    if texts is not None:
        own = measure(tokenizer, texts())
        own["ids_unused"] = tokenizer.vocab_size - own["ids_used"]
        own["ids_unused_share"] = round(own["ids_unused"] / tokenizer.vocab_size, 4)
    embedding, body = tokenizer.vocab_size * width, body_parameters(width)
    pieces = _pieces(tokenizer)
    whole = set(pieces)
    rare = [tokenizer.decode(ids) == text for text, ids in zip(RARE, tokenizer.encode_documents(RARE), strict=True)]
    return {
        "name": name,
        "vocab_size": tokenizer.vocab_size,
        "special_tokens": len(tokenizer.special_ids),
        "texts": kinds,
        "own_text": own,
        "gb2312_level_1": _coverage(level_1(), whole),
        "gb2312_level_2": _coverage(level_2(), whole),
        "embedding_parameters": embedding,
        "embedding_share": round(embedding / (embedding + body), 4),
        "round_trip": {
            "texts": sum(bool(each["gives_the_text_back"]) for each in kinds.values()),
            "of_texts": len(kinds),
            "rare_lines": sum(rare),
            "of_rare_lines": len(rare),
        },
        "longest_han": _longest(piece for piece in pieces if piece and all(map(_is_han, piece))),
        "longest": _longest(pieces),
    }


def _pieces(tokenizer: Tokenizer) -> list[str]:
    """The text of each token that is whole characters; special and other added tokens are left out."""
    table = byte_table(tokenizer.backend, tokenizer.special_ids)
    added = tokenizer.backend.get_added_tokens_decoder()
    ordinary = (index for index in range(tokenizer.vocab_size) if index not in added)
    if table is None:
        return [tokenizer.decode([index]) for index in ordinary]
    found = []
    for index in ordinary:
        try:
            found.append((table.pieces[index] or b"").decode())
        except UnicodeDecodeError:  # a part of a character
            continue
    return found


def _coverage(hanzi: str, pieces: set[str]) -> dict[str, Any]:
    single = sum(character in pieces for character in hanzi)
    return {"single_tokens": single, "of": len(hanzi), "share": round(single / len(hanzi), 4)}


def _longest(pieces: Iterable[str]) -> list[str]:
    """The longest by characters, the alphabet's order among equals."""
    return sorted(set(pieces), key=lambda piece: (-len(piece), piece))[:LONGEST]


def _is_han(character: str) -> bool:
    return any(low <= ord(character) <= high for low, high in _HAN)
