"""Cleaning that no language model misses: one spelling for what looks the same, and nothing that cannot be seen.

Width is left alone: NFKC would turn ，！？：（） into ASCII for ever, so the text is only composed (NFC).
"""

from __future__ import annotations

import re
import unicodedata

from fangcun.corpus.clean.characters import (
    IDEOGRAPHIC_SPACE,
    LINE_ENDS,
    ODD_LINE_END,
    UNSEEN,
    UNSEEN_RANGES,
    kinds,
)

_LINE_ENDS = re.compile(f"\r\n|[{LINE_ENDS}]")
_UNSEEN = re.compile("[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in UNSEEN_RANGES) + "]+")
# A run of white space at the start of a line that holds an ideographic space is an indent of Chinese prose.
# Indents of spaces and tabs alone stay: in code they mean something.
_INDENT = re.compile("^[^\\S\n\u3000]*\u3000[^\\S\n]*", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{4,}")


def normalize(text: str) -> str:
    """Clean one document.

    Line ends become `\\n`; control characters (except tab), BOM, zero-width space, direction marks and lone surrogates
    go; canonical composition (NFC, never NFKC); ideographic indents and trailing white space go; at most two blank
    lines in a row; none at the start or the end. Applying it twice changes nothing.
    """
    found = kinds(text)
    if found & ODD_LINE_END:
        text = _LINE_ENDS.sub("\n", text)
    if found & UNSEEN:
        text = _UNSEEN.sub("", text)
    # Composition comes after the removals, which may bring a letter and its accent together.
    text = unicodedata.normalize("NFC", text)
    if found & IDEOGRAPHIC_SPACE:
        text = _INDENT.sub("", text)
    text = "\n".join([line.rstrip() for line in text.split("\n")])
    if "\n\n\n\n" in text:
        text = _BLANK_LINES.sub("\n\n\n", text)
    return text.strip("\n")
