"""What a tokenizer does to text, in the few numbers that matter: `report.json`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fangcun.tokenizer.core import Tokenizer

SAMPLE_BYTES = 1_000_000


def measure(tokenizer: Tokenizer, texts: Iterable[str]) -> dict[str, Any]:
    """Characters and bytes a token, share of unknown tokens, and whether decoding gives the text back, on `texts`."""
    characters = size_bytes = tokens = unknown = 0
    round_trip = True
    used: set[int] = set()
    for text in texts:
        (ids,) = tokenizer.encode_documents([text])
        characters += len(text)
        size_bytes += len(text.encode())
        tokens += len(ids)
        unknown += ids.count(tokenizer.unk_id) if tokenizer.unk_id is not None else 0
        used.update(ids)
        round_trip = round_trip and tokenizer.decode(ids) == text
    return {
        "characters": characters,
        "bytes": size_bytes,
        "tokens": tokens,
        "characters_per_token": round(characters / tokens, 4) if tokens else None,
        "bytes_per_token": round(size_bytes / tokens, 4) if tokens else None,
        "unknown_share": round(unknown / tokens, 6) if tokens else None,
        "ids_used": len(used),
        "gives_the_text_back": round_trip if tokens else None,
    }
