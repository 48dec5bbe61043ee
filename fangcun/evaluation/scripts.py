"""Han, Latin or other: which script a character belongs to, and how the bits of tokens fall on them.

Han: CJK unified ideographs with their extensions and compatibility forms, and 〇. Latin: letters A to Z with and without
accents, full-width ones too. Other: all else, digits, punctuation and spaces among it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SCRIPTS = ("han", "latin", "other")

_HAN = ((0x3007, 0x3007), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))
_LATIN = (
    (0x41, 0x5A),
    (0x61, 0x7A),
    (0xAA, 0xAA),
    (0xBA, 0xBA),
    (0xC0, 0xD6),
    (0xD8, 0xF6),
    (0xF8, 0x24F),
    (0x1E00, 0x1EFF),
    (0xFF21, 0xFF3A),
    (0xFF41, 0xFF5A),
)


def script_of_bytes(text: str) -> npt.NDArray[np.int8]:
    """For each UTF-8 byte of a text the place in SCRIPTS of the character it belongs to."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    scripts = np.full(len(points), SCRIPTS.index("other"), np.int8)
    for name, ranges in (("han", _HAN), ("latin", _LATIN)):
        for first, last in ranges:
            scripts[(points >= first) & (points <= last)] = SCRIPTS.index(name)
    sizes = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
    return np.repeat(scripts, sizes)


def spread(
    bits: npt.NDArray[np.float64], token_bytes: npt.NDArray[np.int64], scripts: npt.NDArray[np.int8]
) -> npt.NDArray[np.float64]:
    """Bits that fall on each script: those of a token in equal parts on the bytes it stands for.

    bits: of each token. token_bytes: their bytes, which together are those of the text. A token that stands for no byte
    counts where the next byte does, so that the parts always sum to the whole.
    """
    if not len(scripts):
        return np.zeros(len(SCRIPTS))
    ends = np.cumsum(token_bytes)
    starts = ends - token_bytes
    empty = token_bytes == 0
    starts = np.where(empty, np.minimum(starts, len(scripts) - 1), starts)
    ends = np.where(empty, starts + 1, ends)
    totals = []
    for number in range(len(SCRIPTS)):
        before = np.concatenate(([0], np.cumsum(scripts == number)))
        totals.append(float((bits * (before[ends] - before[starts]) / (ends - starts)).sum()))
    return np.array(totals)
