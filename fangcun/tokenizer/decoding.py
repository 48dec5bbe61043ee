"""Ids back to bytes: one table that decoding, streaming and byte counts share.

`tokenizers` decodes whole sequences only. For the decoders that language models use (byte-level, sentencepiece with
byte fallback, plain joining) each id stands for fixed bytes, so text can be put together id by id. Other decoders get
no table, and decoding goes through the library.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tokenizers

SPACE_MARK = "▁"
"""U+2581, sentencepiece's sign for a space."""


def byte_characters() -> dict[str, int]:
    """The printable character that stands for each byte in byte-level vocabularies, as GPT-2 defined it.

    Bytes that are visible Latin-1 characters stand for themselves; the others, in order, for U+0100 onwards.
    """
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    table = {chr(byte): byte for byte in visible}
    hidden = [byte for byte in range(256) if byte not in set(visible)]
    table.update({chr(256 + i): byte for i, byte in enumerate(hidden)})
    return table


@dataclass(frozen=True)
class ByteTable:
    """What each id stands for. `pieces[id]` is None where no token has the id."""

    pieces: list[bytes | None]
    special: frozenset[int]
    strips_space: bool
    """The first space of the text is not part of it (sentencepiece puts one in front)."""

    def join(self, ids: Iterable[int], *, skip_special_tokens: bool) -> bytes:
        """The bytes of `ids`, the first space still in place. Ids outside the table stand for nothing."""
        pieces, skipped, size = self.pieces, self.special if skip_special_tokens else (), len(self.pieces)
        return b"".join(pieces[i] or b"" for i in ids if 0 <= i < size and i not in skipped)

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """The text of `ids`; bytes that are no UTF-8 become U+FFFD."""
        joined = self.join(ids, skip_special_tokens=skip_special_tokens)
        if self.strips_space and joined.startswith(b" "):
            joined = joined[1:]
        return joined.decode("utf-8", "replace")


def _byte_fallback(token: str) -> int | None:
    """0xAB for `<0xAB>`, else None."""
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        try:
            return int(token[3:5], 16)
        except ValueError:
            return None
    return None


def _state(part: Any) -> dict[str, Any]:
    return json.loads(part.__getstate__())


def _plan(decoder: dict[str, Any]) -> tuple[str, bool, bool, bool] | None:
    """(kind, replaces the space mark, has byte fallback, strips a space) of a decoder we can tabulate, else None."""
    if decoder["type"] == "ByteLevel":
        return "bytes", False, False, False
    steps = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    marks = fallback = strips = fused = False
    for step in steps:
        if step == {"type": "Replace", "pattern": {"String": SPACE_MARK}, "content": " "} and not fused:
            marks = True
        elif step["type"] == "ByteFallback" and not fused:
            fallback = True
        elif step["type"] == "Fuse":
            fused = True
        elif step == {"type": "Strip", "content": " ", "start": 1, "stop": 0} and fused:
            strips = True
        else:
            return None
    return ("text", marks, fallback, strips) if fused else None


def byte_table(backend: tokenizers.Tokenizer, special: frozenset[int]) -> ByteTable | None:
    """The table of a tokenizer, or None when its decoder is none of those that can be tabulated."""
    plan = _plan(_state(backend.decoder)) if backend.decoder is not None else None
    if plan is None:
        return None
    kind, marks, fallback, strips = plan
    vocabulary = backend.get_vocab(with_added_tokens=True)
    pieces: list[bytes | None] = [None] * (max(vocabulary.values(), default=-1) + 1)
    characters = byte_characters()
    for token, index in vocabulary.items():
        if kind == "bytes":
            codes = [characters.get(character) for character in token]
            # As in the library: a token with one foreign character (an added token) is meant literally.
            whole = [code for code in codes if code is not None]
            pieces[index] = bytes(whole) if len(whole) == len(codes) else token.encode()
            continue
        byte = _byte_fallback(token) if fallback else None
        text = token.replace(SPACE_MARK, " ") if marks else token
        pieces[index] = text.encode("utf-8", "replace") if byte is None else bytes([byte])
    return ByteTable(pieces, special, strips)
