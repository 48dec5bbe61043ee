"""The report card as one picture: bars in an SVG without scripts, fonts or links, alone or in an HTML page."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from fangcun.errors import FangcunError

_COLOURS = ("#3b6ea8", "#d1782b", "#4a9a5b", "#b5423c", "#7d62a8", "#8a6a52", "#c76fa5", "#6b6b6b")
_TITLES = {
    "modern": "modern 现代文", "classical": "classical 文言", "poetry": "poetry 诗词", "english": "English 英文",
    "code": "code 代码", "digits": "digits 数字", "own": "own text 自己的文本",
}  # fmt: skip
_LEFT, _WIDTH, _BAR, _GAP, _TOP = 210, 880, 13, 12, 34


def card_svg(card: dict[str, Any]) -> str:
    """Two panels of bars, a colour a tokenizer: characters a token on each text; coverage of hanzi and embedding share."""
    columns = card["tokenizers"]
    rates = {
        kind: [each["texts"][kind]["characters_per_token"] or 0 for each in columns] for kind in columns[0]["texts"]
    }
    if columns[0]["own_text"]:
        rates["own"] = [each["own_text"]["characters_per_token"] or 0 for each in columns]
    shares = {
        "GB 2312 level 1 一级字": [each["gb2312_level_1"]["share"] for each in columns],
        "GB 2312 level 2 二级字": [each["gb2312_level_2"]["share"] for each in columns],
        f"embedding 词嵌入, width {card['width']}": [each["embedding_share"] for each in columns],
    }
    if columns[0]["own_text"]:
        shares["unused ids 未用词表"] = [each["own_text"]["ids_unused_share"] for each in columns]
    parts, y = [], 20
    for at, each in enumerate(columns):
        name = f"{each['name']} ({each['vocab_size']:,})"
        parts.append(f'<rect x="10" y="{y}" width="12" height="12" fill="{_colour(at)}"/>')
        parts.append(f'<text x="28" y="{y + 11}">{escape(name)}</text>')
        y += 18
    first = {_TITLES.get(kind, kind): values for kind, values in rates.items()}
    panels = (("Characters a token 每个词元的字符数", first, "{:.2f}"), ("Shares 占比", shares, "{:.1%}"))
    for title, groups, style in panels:
        drawn, y = _panel(title, groups, style, y + 10)
        parts += drawn
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y + 10}" width="{_WIDTH}" height="{y + 10}" '
        f'font-family="sans-serif" font-size="12" fill="#222"><title>Tokenizers side by side</title>'
        f'<rect width="{_WIDTH}" height="{y + 10}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def write_plot(card: dict[str, Any], file: Path) -> None:
    """Write the picture as .svg or .html. Raises FangcunError for another suffix."""
    file = Path(file)
    if file.suffix.lower() not in (".svg", ".html"):
        raise FangcunError(f"--plot {file}: the suffix is '{file.suffix}', expected .svg or .html.")
    svg = card_svg(card)
    if file.suffix.lower() == ".html":
        svg = f'<!doctype html>\n<html lang="zh"><meta charset="utf-8"><title>Tokenizers side by side</title>\n<body>{svg}</body></html>\n'
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(svg, encoding="utf-8", newline="\n")


def _panel(title: str, groups: dict[str, list[float]], style: str, y: int) -> tuple[list[str], int]:
    """The bars of a panel that begins at `y`, and where it ends."""
    top = max((value for values in groups.values() for value in values), default=0) or 1
    room = _WIDTH - _LEFT - 70
    parts = [f'<text x="10" y="{y + 16}" font-size="14" font-weight="bold">{escape(title)}</text>']
    y += _TOP
    for label, values in groups.items():
        middle = y + len(values) * _BAR / 2 + 4
        parts.append(f'<text x="{_LEFT - 8}" y="{middle:.1f}" text-anchor="end">{escape(label)}</text>')
        for at, value in enumerate(values):
            length = room * value / top
            parts.append(
                f'<rect x="{_LEFT}" y="{y}" width="{length:.1f}" height="{_BAR - 2}" fill="{_colour(at)}"/>'
                f'<text x="{_LEFT + length + 5:.1f}" y="{y + _BAR - 3}" font-size="11">{style.format(value)}</text>'
            )
            y += _BAR
        y += _GAP
    return parts, y


def _colour(at: int) -> str:
    return _COLOURS[at % len(_COLOURS)]
