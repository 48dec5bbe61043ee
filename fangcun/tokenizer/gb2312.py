"""The hanzi of GB2312 in the order of the standard: level 1 (common, by sound) and level 2 (less common, by radical)."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fangcun.tokenizer.core import Tokenizer


def _rows(first: int, last: int) -> str:
    """The characters of the rows `first` to `last` (区), 94 places a row; places without a character are left out."""
    codes = (bytes((0xA0 + row, 0xA0 + place)) for row in range(first, last + 1) for place in range(1, 95))
    return "".join(code.decode("gb2312", "ignore") for code in codes)


@cache
def level_1() -> str:
    """The 3,755 common hanzi, rows 16 to 55, ordered by pinyin."""
    return _rows(16, 55)


@cache
def level_2() -> str:
    """The 3,008 less common hanzi, rows 56 to 87, ordered by radical."""
    return _rows(56, 87)


def token_of_each(tokenizer: Tokenizer, hanzi: str) -> list[int | None]:
    """The id that writes each of `hanzi` alone; None where it takes several. A space that is put in front is left aside."""
    found: list[int | None] = []
    for character, ids in zip(hanzi, tokenizer.encode_documents(list(hanzi)), strict=True):
        # The space is a token of its own, or the beginning of this one; both decode to the character.
        last = ids[-1] if ids else -1
        whole = last != tokenizer.unk_id and tokenizer.decode([last]).removeprefix(" ") == character
        found.append(last if whole else None)
    return found
