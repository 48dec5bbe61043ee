"""Cleaning that no language model misses: one spelling for what looks the same, and nothing that cannot be seen.

Width is left alone: NFKC would turn ，！？：（） into ASCII for ever, so the text is only composed (NFC).
"""

from __future__ import annotations

import re
import unicodedata

_LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
# Control characters, marks of reading direction, BOM and zero-width space. The zero-width joiner and non-joiner stay:
# emoji sequences and Persian spelling need them. Lone surrogates cannot be written as UTF-8.
_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff\ud800-\udfff]+"
)
# A run of white space at the start of a line that holds an ideographic space is an indent of Chinese prose.
# Indents of spaces and tabs alone stay: in code they mean something.
_INDENT = re.compile("^[^\\S\n\u3000]*\u3000[^\\S\n]*", re.MULTILINE)
_TRAILING = re.compile(r"[^\S\n]+$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{4,}")


def normalize(text: str) -> str:
    """Clean one document.

    Line ends become `\\n`; control characters (except tab), BOM, zero-width space, direction marks and lone surrogates
    go; canonical composition (NFC, never NFKC); ideographic indents and trailing white space go; at most two blank
    lines in a row; none at the start or the end. Applying it twice changes nothing.
    """
    text = _LINE_ENDS.sub("\n", text)
    text = _UNSEEN.sub("", text)
    # Composition comes after the removals, which may bring a letter and its accent together.
    text = unicodedata.normalize("NFC", text)
    if "\u3000" in text:
        text = _INDENT.sub("", text)
    text = _TRAILING.sub("", text)
    return _BLANK_LINES.sub("\n\n\n", text).strip("\n")
