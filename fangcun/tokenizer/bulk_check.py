"""Texts on which a fast encoder must give the ids of `tokenizers` before it is trusted with a corpus.

Text of the corpus itself, strings that trip encoders up, the strings of all added tokens, and a walk through Unicode:
libraries know different editions of it, and a character that is a letter for one only is cut elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from fangcun.tokenizer.self_check import EVERYDAY, RARE

if TYPE_CHECKING:
    from fangcun.tokenizer.core import Tokenizer

NASTY = (
    "",
    " ",
    "\n",
    "\r\n\r\n \t\x0b\x0c\x85\u2028\u3000\u00a0 x",
    "0",
    "7 77 777 7777 77777 1,000,000.00 ١٢٣ १२३ ²³ ⅷ ７７",
    "it's IT'S we'll WE'LL x'ſ 'K 's'S",
    "e\u0301\u0301\u0301 \u0301 \u0301a क\u094dष \u200d\u200d",
    "👩🏽‍🚀🏴󠁧󠁢󠁥󠁮󠁧󠁿🇨🇳🇨 \ufe0f",
    "𠀀𪛟𫜴𬺡𮯠𰀀 㐀䶵 𱍐",
    "שלום עולם مرحبا بالعالم \u202eabc\u202c",
    "\ue000\uf8ff\U000f0000\U0010ffff\ufffe\uffff\x00",
    "a" * 5000,
    "哈" * 5000,
    " " * 3000 + "x" + "\n" * 3000,
    "!" * 3000 + "1" * 3000,
    "ab " * 2000,
)
"""Empty and blank texts, digits, contractions, combining marks, emoji, CJK extensions, right-to-left, private use, runs."""

_ADDED_TOKENS = 500
"""Added tokens that are tried, of vocabularies that have thousands."""
_TOGETHER = 64
"""Characters in one text of the walk."""
_SAMPLE_CHARACTERS = 100_000
_DOCUMENT_CHARACTERS = 5_000


def _walk() -> Iterator[int]:
    """Every code point outside of the large uniform blocks, and some of those."""
    yield from chain(range(0x3400), range(0x3400, 0xA000, 61), range(0xA000, 0xAC00), range(0xAC00, 0xD7A0, 61))
    yield from chain(range(0xD7A0, 0xD800), range(0xE000, 0xF900, 61), range(0xF900, 0x10000))
    yield from chain(range(0x10000, 0x20000, 3), range(0x20000, 0x110000, 997))


def unicode_texts() -> list[str]:
    """Characters of all of Unicode between letters, digits, spaces and themselves."""
    points = list(_walk())
    return [
        "".join(f"a{chr(point)}1{chr(point)} {chr(point)}" for point in points[at : at + _TOGETHER])
        for at in range(0, len(points), _TOGETHER)
    ]


def _added(tokenizer: Tokenizer) -> list[str]:
    """The strings of added tokens in text: alone, inside words, between spaces, twice."""
    added = sorted(tokenizer.backend.get_added_tokens_decoder().items())[:_ADDED_TOKENS]
    names = [token.content for _, token in added]
    return [*names, *(f"a{name}b {name} 中{name}{name}\n{name}" for name in names), "".join(names)]


def _bounded(sample: Iterable[str]) -> Iterator[str]:
    left = _SAMPLE_CHARACTERS
    for text in sample:
        text = text[: min(left, _DOCUMENT_CHARACTERS)]
        left -= len(text)
        yield text
        if left <= 0:
            return


def difference(
    tokenizer: Tokenizer, encode: Callable[[Sequence[str]], Any], sample: Iterable[str], *, patterns: bool
) -> str | None:
    """The first text, shortened, for which `encode` gives other ids than `tokenizers`; None when there is none.

    At most 100,000 characters of `sample` are read. `patterns`: the encoder cuts text by a pattern, so walk through
    Unicode too.
    """
    texts = [*EVERYDAY, *RARE, *NASTY, *_added(tokenizer), *_bounded(sample)]
    if patterns:
        texts += unicode_texts()
    expected = tokenizer.encode_documents(texts)
    found = encode(texts)
    ids, start = found.ids.tolist(), 0
    for text, right, length in zip(texts, expected, found.lengths.tolist(), strict=True):
        if ids[start : start + length] != right:
            return repr(text if len(text) <= 40 else text[:40] + "…")
        start += length
    return None
