"""Long documents in pieces that encode to the same ids as the whole.

A tokenizer needs some hundred bytes of memory a token, so a novel or a dump in one document is encoded in pieces, which
also spreads it over processes. A cut is made at the start of a line or before punctuation, and only where it shows to
change nothing: the text around it encodes to the same ids in one piece and in two. Tokenizers for which no cut is harmless (those that put
a space in front of a text) get the document whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

PIECE_CHARACTERS = 1 << 18
"""Length of a piece, about; documents up to twice as long stay whole."""
_CONTEXT_CHARACTERS = 256
"""Text on each side of a cut that is compared."""
_CANDIDATE = re.compile(r"(?<=\n)(?=\S)|(?<=\w)(?=[^\w\s])")
"""Where a line begins, or a word is followed by punctuation."""
_ATTEMPTS = 20
"""Places tried for one cut."""
_BATCH_PIECES = 2048

Encode = Callable[[list[str]], list[list[int]]]


@dataclass(slots=True)
class Piece:
    """A document, or a part of one."""

    text: str
    closes: bool
    """Whether the document ends here."""
    check: bool
    """Whether to compare the text with what its ids decode to."""


def cut_text(text: str, encode: Encode, size: int = PIECE_CHARACTERS) -> Iterator[str]:
    """Yield `text` in parts of about `size` characters whose ids, joined, are those of the whole."""
    start = 0
    while len(text) - start > 2 * size:
        cut = _harmless_cut(text, start + size, start + 2 * size, encode)
        if cut is None:
            break
        yield text[start:cut]
        start = cut
    yield text[start:] if start else text


def _harmless_cut(text: str, low: int, high: int, encode: Encode) -> int | None:
    for match in islice(_CANDIDATE.finditer(text, low, high), _ATTEMPTS):
        at = match.start()
        left, right = text[max(0, at - _CONTEXT_CHARACTERS) : at], text[at : at + _CONTEXT_CHARACTERS]
        whole, before, behind = encode([left + right, left, right])
        if whole == before + behind:
            return at
    return None


def batch_pieces(
    texts: Iterable[str], encode: Encode, size: int = PIECE_CHARACTERS, *, first: int = 0
) -> Iterator[list[Piece]]:
    """Group documents (cut where long) into batches of about `size` characters. `first` is the number of the first one.

    The first 200 documents and every 50th are to be checked; of long ones the first 200 pieces and every 50th.
    """
    batch: list[Piece] = []
    characters = 0
    for index, text in enumerate(texts, first):
        parts = cut_text(text, encode, size)
        number, part = 0, next(parts)
        while part is not None:
            following = next(parts, None)
            batch.append(Piece(part, following is None, _is_sample(index) and _is_sample(number)))
            characters += len(part)
            if characters >= size or len(batch) >= _BATCH_PIECES:
                yield batch
                batch, characters = [], 0
            number, part = number + 1, following
    if batch:
        yield batch


def _is_sample(index: int) -> bool:
    return index < 200 or index % 50 == 0
