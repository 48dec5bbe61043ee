"""What of a text counts when texts are compared: letters, numbers and signs, without white space, punctuation, width, case.

A table from code point to code point does it, so that a batch of documents is folded by one look-up.
"""

from __future__ import annotations

import functools
import hashlib
import unicodedata
from collections.abc import Sequence
from importlib import resources

import numpy as np

_CODE_POINTS = 0x110000
# Unassigned, private and ideographic code points fold to themselves; only the ranges with something to fold are walked.
_WALKED = (range(0x3400), range(0x9FFF, 0xAC00), range(0xD7A4, 0x20000), range(0xE0000, 0xE0200))


class Folding:
    """Folds texts for comparison.

    Taken out: white space, controls, punctuation, variation selectors, and signs other than mathematical and currency
    ones (emoji and box drawing among them). Full-width and half-width forms and the radicals of bad PDFs (⼀ for 一)
    become the usual characters, letters lower case where that is one character. Texts are taken to be composed (NFC).
    `traditional=True` also turns each traditional character into its simplified one by OpenCC's character
    table `t2s`, which comes along (one character at a time: 乾 and 干 stay what the table says, whatever the word).
    """

    def __init__(self, *, traditional: bool = False) -> None:
        self.traditional = traditional
        self._table = _table(traditional)

    def __reduce__(self) -> tuple[object, ...]:
        return functools.partial(Folding, traditional=self.traditional), ()

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with the table, and so with Python's Unicode version."""
        return hashlib.sha256(self._table.tobytes()).hexdigest()[:16]

    def fold(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The folded code points of all texts one after the other (uint32), and the index at which each text starts.

        The starts (int64) are one more than the texts: the last one is the end.
        """
        folded = self._table[_code_points("".join(texts))]
        starts = np.zeros(len(texts) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)), out=starts[1:])
        kept = folded != 0
        before = np.zeros(len(kept) + 1, np.int64)
        np.cumsum(kept, out=before[1:])
        return folded[kept], before[starts]

    def fold_one(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """The folded code points of a text (uint32), and the index in the text that each comes from (int64)."""
        folded = self._table[_code_points(text)]
        places = np.flatnonzero(folded)
        return folded[places], places

    def folded_text(self, text: str) -> str:
        """The folded text as a string."""
        return self.fold_one(text)[0].tobytes().decode("utf-32-le", "surrogatepass")


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


@functools.cache
def _table(traditional: bool) -> np.ndarray:
    table = np.arange(_CODE_POINTS, dtype=np.uint32)
    for code in (code for codes in _WALKED for code in codes):
        table[code] = _folded(chr(code))
    if traditional:
        simplified = _simplified()
        table[simplified[0]] = table[simplified[1]]
    table.flags.writeable = False
    return table


def _folded(character: str) -> int:
    if "\uff00" <= character <= "\uffef" or "\u2f00" <= character <= "\u2fdf":
        character = unicodedata.normalize("NFKC", character)[0]
    if "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef":
        return 0
    category = unicodedata.category(character)
    if category[0] in "PZ" or category in ("Cc", "Cf", "Cs", "Sk", "So") or character in "~～":
        return 0
    lower = character.lower()
    return ord(lower if len(lower) == 1 else character)


def _simplified() -> tuple[np.ndarray, np.ndarray]:
    """OpenCC's table t2s, which lies beside this file, so that results do not depend on an installed version."""
    lines = (
        (resources.files("fangcun") / "corpus" / "dedup" / "traditional.txt").read_text(encoding="utf-8").splitlines()
    )
    old, new = ([ord(character) for character in line] for line in lines[1:])
    return np.array(old, np.int64), np.array(new, np.int64)
