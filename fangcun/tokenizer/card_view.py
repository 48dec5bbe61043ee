"""Report cards side by side: a table for the terminal, plain lines elsewhere, and a picture of its own in SVG."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Callable
from typing import Any

from fangcun.tokenizer.card import BODY_LAYERS, KINDS, OWN

Card = dict[str, Any]

_COLOURS = ("#3b6ea5", "#c8553d", "#588157", "#8d6a9f", "#c9a227", "#4d908e", "#7f5539", "#6c757d")
_LEFT, _TOP, _BAR, _GAP, _PLOT = 150, 64, 14, 18, 520


def kinds_of(cards: list[Card]) -> list[str]:
    """The texts that the cards have, in order."""
    return [kind for kind in (*KINDS, OWN) if all(kind in card["texts"] for card in cards)]


def rows(cards: list[Card]) -> list[list[str]]:
    """The table: a row a figure, a column a tokenizer; the first row holds the names."""

    def row(label: str, value: Callable[[Card], str]) -> list[str]:
        return [label, *(value(card) for card in cards)]

    table = [row("", lambda card: card["name"]), row("vocabulary, ids", lambda card: f"{card['vocab_size']:,}")]
    for unit in ("characters", "bytes"):
        for kind in kinds_of(cards):
            table.append(
                row(f"{unit}/token, {kind}", lambda card, k=kind, u=unit: _number(card["texts"][k][f"{u}_per_token"]))
            )
    for level in (1, 2):
        table.append(
            row(f"GB2312 level {level} as one token", lambda card, n=level: _share(card["gb2312"][f"level_{n}"]))
        )
    first = cards[0]
    table.append(
        row(
            f"unused ids on {first['unused_ids']['on']}",
            lambda card: f"{card['unused_ids']['ids']:,} ({_share(card['unused_ids']['share'])})",
        )
    )
    table.append(
        row(
            f"embedding at width {first['embedding']['width']}",
            lambda card: f"{card['embedding']['parameters'] / 1e6:,.1f}M ({_share(card['embedding']['share'])})",
        )
    )
    table.append(row("round trip", lambda card: _round_trip(card["round_trip"])))
    return table


def notes(cards: list[Card]) -> list[str]:
    """What the table's figures are of, and the longest tokens."""
    body = cards[0]["embedding"]["body_parameters"] / 1e6
    lines = [
        f"The embedding's share is that in a model with a body of {BODY_LAYERS} layers, {body:,.1f}M parameters, head tied."
    ]
    for card in cards:
        for which, words in card["longest"].items():
            if words:
                shown = "  ".join(_visible(word) for word in words)
                lines.append(f"{card['name']}, longest tokens, {which}: {shown}")
    return lines


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _share(value: float | None) -> str:
    # 100.0% is said of all alone: 3,753 of 3,755 hanzi are 99.9%.
    return "–" if value is None else f"{value if value >= 1 else min(value, 0.999):.1%}"


def _round_trip(found: dict[str, Any]) -> str:
    return "exact" if not found["failing"] else f"{found['failing']} of {found['lines']} differ"


def _visible(word: str, most: int = 24) -> str:
    """A token for people: white space and controls escaped, runs and long tokens shortened."""
    if len(word) > 8 and len(set(word)) == 1:
        return f"{_visible(word[0])}×{len(word)}"
    text = "".join(
        "␣" if c == " " else c if c.isprintable() else c.encode("unicode_escape").decode() for c in word[:most]
    )
    return text + ("…" if len(word) > most else "")


def plain(cards: list[Card]) -> str:
    """The table as aligned lines."""
    table = rows(cards)
    widths = [max(_columns(row[at]) for row in table) for at in range(len(table[0]))]
    lines = []
    for row in table:
        cells = [row[0] + " " * (widths[0] - _columns(row[0]))]
        cells += [" " * (width - _columns(cell)) + cell for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([*lines, "", *notes(cards)])


def _columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def show(cards: list[Card]) -> None:
    """Print the cards: with rich on a terminal, as plain lines elsewhere."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        print(plain(cards))
        return
    first, *rest = rows(cards)
    table = Table(title="Tokenizers")
    for at, name in enumerate(first):
        table.add_column(_escape(name), justify="right" if at else "left", overflow="fold")
    for row in rest:
        table.add_row(*map(_escape, row))
    console.print(table)
    for line in notes(cards):
        console.print(line, markup=False, highlight=False)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def svg(cards: list[Card]) -> str:
    """Characters a token as bars, a group a text, a colour a tokenizer; a self-contained SVG document."""
    kinds = kinds_of(cards)
    values = [card["texts"][kind]["characters_per_token"] or 0 for card in cards for kind in kinds]
    scale = _PLOT / max([*values, 1e-9])
    group = len(cards) * _BAR + _GAP
    top = _TOP + 18 * len(cards)
    height, width = top + len(kinds) * group + 24, _LEFT + _PLOT + 70
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#222">',
        "<title>Characters per token</title>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        '<text x="16" y="28" font-size="16">Characters per token</text>',
        '<text x="16" y="46" fill="#666">Longer bars: fewer tokens for the same text.</text>',
    ]
    for at, card in enumerate(cards):
        y = _TOP + 18 * at
        share = f"{card['vocab_size']:,} ids, {_share(card['embedding']['share'])} of a model {card['embedding']['width']} wide"
        parts.append(f'<rect x="16" y="{y}" width="12" height="12" fill="{_colour(at)}"/>')
        parts.append(f'<text x="34" y="{y + 10}">{html.escape(card["name"])}: {share}</text>')
    for n, kind in enumerate(kinds):
        y = top + 12 + n * group
        parts.append(
            f'<text x="{_LEFT - 10}" y="{y + len(cards) * _BAR / 2 + 4:.1f}" text-anchor="end">{html.escape(kind)}</text>'
        )
        for at, card in enumerate(cards):
            value = card["texts"][kind]["characters_per_token"] or 0
            length, bar_y = value * scale, y + at * _BAR
            parts.append(
                f'<rect x="{_LEFT}" y="{bar_y}" width="{length:.1f}" height="{_BAR - 2}" fill="{_colour(at)}"/>'
            )
            parts.append(f'<text x="{_LEFT + length + 5:.1f}" y="{bar_y + 10}" font-size="10">{value:.2f}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _colour(at: int) -> str:
    return _COLOURS[at % len(_COLOURS)]


def page(cards: list[Card]) -> str:
    """The picture and the table as one HTML page that needs nothing else."""
    head, *rest = rows(cards)

    def line(row: list[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>"

    style = (
        "body{font:14px system-ui,sans-serif;margin:2em;color:#222}table{border-collapse:collapse;margin:1em 0}"
        "td,th{padding:.2em .8em;border-bottom:1px solid #ddd;text-align:right}td:first-child{text-align:left}"
    )
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Tokenizers</title>',
            f"<style>{style}</style></head><body><h1>Tokenizers</h1>", svg(cards),
            "<table>", line(head, "th"), *(line(row, "td") for row in rest), "</table>",
            *(f"<p>{html.escape(note)}</p>" for note in notes(cards)), "</body></html>\n",
        ]
    )  # fmt: skip
