"""What counts as a hanzi, as Chinese punctuation, as the end of a sentence; one place for all rules."""

from __future__ import annotations

from functools import cache

import numpy as np

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af〇"
"""For the inside of a regular expression's brackets: unified ideographs, extensions, compatibility forms, zero."""

HAN_PUNCTUATION = "，。！？；：、“”‘’（）《》〈〉「」『』【】〔〕…—·～"
"""Punctuation that stands between hanzi without spaces."""

SENTENCE_ENDS = "。！？；…」』”’）》】〕.!?;:：)\"'~～—"
"""With one of these a line may end a paragraph."""

UNSEEN, ODD_LINE_END, WIDE_LETTER, IDEOGRAPHIC_SPACE = 1, 2, 4, 8
"""Bits of `kinds`."""


def kinds(text: str) -> int:
    """Which characters that a rule looks for occur in `text`, as bits. One pass of numpy, so that rules with nothing to do
    cost nothing: a regular expression over hanzi takes ten times as long."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    return int(np.bitwise_or.reduce(_table()[codes])) if len(codes) else 0


@cache
def _table() -> np.ndarray:
    table = np.zeros(0x110000, np.uint8)
    for first, last in UNSEEN_RANGES:
        table[first : last + 1] |= UNSEEN
    table[[ord(c) for c in LINE_ENDS]] |= ODD_LINE_END
    for first, last in ("０９", "ＡＺ", "ａｚ"):
        table[ord(first) : ord(last) + 1] |= WIDE_LETTER
    table[0x3000] |= IDEOGRAPHIC_SPACE
    return table


LINE_ENDS = "\r\x0b\x0c\x85\u2028\u2029"
UNSEEN_RANGES = (
    (0x00, 0x08), (0x0E, 0x1F), (0x7F, 0x84), (0x86, 0x9F), (0x200B, 0x200B), (0x200E, 0x200F), (0x202A, 0x202E), (0x2060, 0x2060),
    (0x2066, 0x2069), (0xFEFF, 0xFEFF), (0xD800, 0xDFFF),
)  # fmt: skip
"""Control characters, marks of reading direction, BOM, zero-width space, lone surrogates. The zero-width joiner and
non-joiner are not among them: emoji sequences and Persian spelling need them."""
