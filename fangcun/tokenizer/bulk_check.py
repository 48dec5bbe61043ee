"""Texts on which a fast encoder must give the ids of `tokenizers` before it is trusted with a corpus.

Text of the corpus itself, strings that trip encoders up, the strings of all added tokens, and a walk through Unicode:
libraries know different editions of it, and a character that is a letter or a space for one only is cut elsewhere
(U+180E is a space for the pattern engine of `tokenizers`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from fangcun.tokenizer.self_check import EVERYDAY, RARE

if TYPE_CHECKING:
    from fangcun.tokenizer.bulk import Encode
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


_WALKED = ((0, 0x3400), (0xA000, 0xAC00), (0xD7A4, 0xD800), (0xF900, 0x10000), (0x1D400, 0x1D800), (0x1F000, 0x1FC00))
"""Blocks walked through character by character: most scripts, signs, emoji."""
_UNIFORM = (
    (0x3400, 0xA000),
    (0xAC00, 0xD7A4),
    (0xE000, 0xF900),
    (0x20000, 0x2A6E0),
    (0x2A700, 0x2EBE0),
    (0x30000, 0x31350),
)
"""Blocks of one kind, hanzi, hangul and private use: some of their characters stand for all."""
_UNIFORM_STEP = 61


def _around(character: str) -> str:
    """A character between letters, digits, punctuation, spaces, line ends and itself."""
    c = character
    return f"a{c}1{c} {c}{c}!{c}\n"


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


def difference(tokenizer: Tokenizer, encode: Encode, sample: Iterable[str]) -> str | None:
    """The first text, shortened, for which `encode` gives other ids than `tokenizers`; None when there is none.

    At most 100,000 characters of `sample` are read.
    """
    texts = [*EVERYDAY, *RARE, *NASTY, *_added(tokenizer), *_bounded(sample)]
    for place in _differing(tokenizer, encode, texts):
        text = texts[place]
        return repr(text if len(text) <= 40 else text[:40] + "…")
    return None


def safe_characters(tokenizer: Tokenizer, encode: Encode) -> np.ndarray | str:
    """For each code point whether `encode` is known to cut text around it as `tokenizers` does; bool, (0x110000,).

    Characters that were not tried are not known to. Returns a text instead where ids differ and none of its characters
    explains it.
    """
    safe = np.zeros(0x110000, dtype=bool)
    for start, stop in (*_WALKED, *_UNIFORM):
        safe[start:stop] = True
    ranges = [range(*block) for block in _WALKED] + [range(*block, _UNIFORM_STEP) for block in _UNIFORM]
    points = list(map(chr, chain.from_iterable(ranges)))
    groups = [points[at : at + _TOGETHER] for at in range(0, len(points), _TOGETHER)]
    for place in _differing(tokenizer, encode, ["".join(map(_around, group)) for group in groups]):
        group = groups[place]
        culprits = _differing(tokenizer, encode, list(map(_around, group)))
        if not culprits:
            return repr(_around(group[0]) + "…")
        for character in map(ord, (group[culprit] for culprit in culprits)):
            safe[character] = False
            for start, stop in _UNIFORM:
                if start <= character < stop:
                    safe[start:stop] = False
    return safe


def _differing(tokenizer: Tokenizer, encode: Encode, texts: list[str]) -> list[int]:
    expected = tokenizer.encode_documents(texts)
    found = encode(texts)
    ids, start, places = found.ids.tolist(), 0, []
    for place, (right, length) in enumerate(zip(expected, found.lengths.tolist(), strict=True)):
        if ids[start : start + length] != right:
            places.append(place)
        start += length
    return places
