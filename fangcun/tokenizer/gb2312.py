"""The hanzi of GB 2312-1980, made from the codec that Python has: 3,755 common ones (level 1) and 3,008 rarer (level 2)."""

from __future__ import annotations

from functools import cache


def _rows(first: int, last: int) -> str:
    """The characters of the table's rows `first` to `last`, in the order of the table; free places are left out."""
    cells = (bytes([0xA0 + row, 0xA0 + column]) for row in range(first, last + 1) for column in range(1, 95))
    return "".join(cell.decode("gb2312", "ignore") for cell in cells)


@cache
def level_1() -> str:
    """The 3,755 hanzi of rows 16 to 55, in the order of their pinyin."""
    return _rows(16, 55)


@cache
def level_2() -> str:
    """The 3,008 hanzi of rows 56 to 87, in the order of their radicals."""
    return _rows(56, 87)
