"""The hanzi of GB2312 in the order of the standard: level 1 (common, by sound) and level 2 (less common, by radical)."""

from __future__ import annotations

from functools import cache


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
