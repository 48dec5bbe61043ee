"""Width, quotes and spaces: one spelling for what is written in several ways. Chinese punctuation stays as it is."""

from __future__ import annotations

import re

from fangcun.corpus.clean.characters import HAN, HAN_PUNCTUATION, WIDE_LETTER, kinds

_LETTERS = {
    full: full - 0xFEE0 for first, last in ("09", "AZ", "az") for full in range(ord(first) + 0xFEE0, ord(last) + 0xFEE1)
}
_CORNERS = str.maketrans("「」『』﹁﹂﹃﹄", "“”‘’“”‘’")
_HAN = re.compile(f"[{HAN}]")
_BESIDE_GAP = re.compile(f"[{HAN}{HAN_PUNCTUATION}]")
_GAP = re.compile("[ \\t\u00a0]+")


def narrow_letters(text: str) -> str:
    """Full-width letters and digits as ASCII: ＡＢＣ１２３ -> ABC123. Punctuation keeps its width."""
    return text.translate(_LETTERS) if kinds(text) & WIDE_LETTER else text


def curl_quotes(text: str) -> str:
    """「」『』 as “”‘’, and straight double quotes in paragraphs with hanzi, where their number is even, as “ and ” in turn."""
    if any(mark in text for mark in "「」『』﹁﹂﹃﹄"):
        text = text.translate(_CORNERS)
    if '"' not in text and "＂" not in text:
        return text
    return "\n".join(_curl(line) for line in text.split("\n"))


def _curl(line: str) -> str:
    line = line.replace("＂", '"')
    parts = line.split('"')
    if len(parts) == 1 or len(parts) % 2 == 0 or not _HAN.search(line):
        return line
    return "".join(part + ("“”"[number % 2] if number < len(parts) - 1 else "") for number, part in enumerate(parts))


def join_hanzi(text: str) -> str:
    """Spaces between two hanzi, or a hanzi and Chinese punctuation, taken out. Ideographic spaces and line ends stay."""
    if not (" " in text or "\t" in text or "\u00a0" in text):
        return text

    def close(gap: re.Match[str]) -> str:
        start, end = gap.span()
        before, after = text[start - 1 : start], text[end : end + 1]
        beside = _BESIDE_GAP.match(before) and _BESIDE_GAP.match(after)
        return "" if beside and (_HAN.match(before) or _HAN.match(after)) else gap.group()

    return _GAP.sub(close, text)
