"""The hanzi that a Chinese vocabulary should know as one token each: level 1 of GB2312."""

from __future__ import annotations


def gb2312_level_1() -> list[str]:
    """The 3,755 hanzi of level 1 of GB/T 2312-1980 (rows 16 to 55), in the order of the standard."""
    cells = [(row, cell) for row in range(0xB0, 0xD8) for cell in range(0xA1, 0xFF) if (row, cell) <= (0xD7, 0xF9)]
    return [bytes(cell).decode("gb2312") for cell in cells]
