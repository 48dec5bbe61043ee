"""Lines that were cut at a fixed width, put together again: text of old web pages, of e-mail, of scanned books."""

from __future__ import annotations

import re
from collections import Counter

from fangcun.corpus.clean.characters import HAN, SENTENCE_ENDS
from fangcun.corpus.documents import CHAPTER_PATTERN

_LEAST_LINES = 8
_LEAST_WIDTH = 30
"""In columns; a hanzi takes two. Narrower lines are verse or lists."""
_LEAST_SHARE = 0.5
_SLACK = 4
_HEADING = re.compile(CHAPTER_PATTERN)
_WIDE = re.compile(f"[{HAN}\u3000-\u30ff\uff00-\uffef“”‘’…—]")
_ASCII = re.compile(r"[!-~]")


def unwrap(text: str) -> str:
    """Join the lines of a text that was cut at a fixed width.

    It was, when at least half of its lines that do not end a sentence are of nearly one width, the largest there is.
    Then a full line and the next one become one, unless the next is blank, indented or a heading. Applying it twice
    changes nothing.
    """
    while (joined := _unwrap_once(text)) != text:
        text = joined
    return text


def _unwrap_once(text: str) -> str:
    lines = text.split("\n")
    if len(lines) < _LEAST_LINES:
        return text
    widths = [_columns(line) for line in lines]
    # The last line of a paragraph is as long as it happens to be.
    running = [width for line, width in zip(lines, widths, strict=True) if line and line[-1] not in SENTENCE_ENDS]
    if len(running) < _LEAST_LINES:
        return text
    full = _typical(running)
    if full < _LEAST_WIDTH or max(widths) > full + _SLACK:
        return text
    if sum(width >= full - _SLACK for width in running) < _LEAST_SHARE * len(running):
        return text
    out = [lines[0]]
    for (line, width), after in zip(zip(lines, widths, strict=True), lines[1:], strict=False):
        starts = not after.strip() or after[0].isspace() or _HEADING.match(after) is not None
        if line and width >= full - _SLACK and not starts and not _HEADING.match(line):
            out[-1] += _seam(line, after) + after
        else:
            out.append(after)
    return "\n".join(out)


def _columns(line: str) -> int:
    return len(line) + len(_WIDE.findall(line))


def _typical(widths: list[int]) -> int:
    """The width around which most lines lie; of several the larger."""
    counts = Counter(width // 2 for width in widths)
    return 2 * max(counts, key=lambda half: (counts[half] + counts[half + 1] + counts[half - 1], half)) + 2


def _seam(line: str, after: str) -> str:
    """A space between words of Latin script, nothing between hanzi."""
    return " " if _ASCII.match(line[-1]) and _ASCII.match(after[0]) else ""
