"""The report card on a terminal: one column a tokenizer, as a rich table or as plain lines."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable
from typing import Any, TextIO

_TITLES = {
    "modern": "modern Chinese", "classical": "classical Chinese", "poetry": "poetry", "english": "English", "code": "code",
    "digits": "digits",
}  # fmt: skip
_SHOWN_CHARACTERS = 24


def card_rows(card: dict[str, Any]) -> list[list[str]]:
    """The card as rows of cells; the first is the head."""
    columns = card["tokenizers"]
    rows = [["", *(each["name"] for each in columns)]]

    def row(title: str, cell: Callable[[dict[str, Any]], str]) -> None:
        rows.append([title, *map(cell, columns)])

    row("ids", lambda each: f"{each['vocab_size']:,}")
    for kind, title in _TITLES.items():
        row(f"{title}: characters / bytes a token", lambda each, kind=kind: _rates(each["texts"][kind]))
    if any(each["own_text"] for each in columns):
        row("own text: characters / bytes a token", lambda each: _rates(each["own_text"]))
        row("own text: tokens", lambda each: f"{each['own_text']['tokens']:,}")
        row(
            "own text: ids without use",
            lambda each: f"{each['own_text']['ids_unused']:,} ({each['own_text']['ids_unused_share']:.0%})",
        )
        row("own text comes back", lambda each: "yes" if each["own_text"]["gives_the_text_back"] else "no")
    for level in (1, 2):
        row(f"GB 2312 level {level}: hanzi that are a token", lambda each, level=level: _covered(each, level))
    row(
        f"embedding at width {card['width']:,}",
        lambda each: f"{each['embedding_parameters'] / 1e6:.1f}M ({each['embedding_share']:.0%})",
    )
    row("texts that come back", lambda each: "{texts} of {of_texts}".format(**each["round_trip"]))
    row("rare lines that come back", lambda each: "{rare_lines} of {of_rare_lines}".format(**each["round_trip"]))
    return rows


def card_notes(card: dict[str, Any]) -> list[str]:
    """The lines below the table: the longest tokens, and what the embedding's share is of."""
    notes = []
    for each in card["tokenizers"]:
        for key, what in (("longest_han", "longest tokens of hanzi"), ("longest", "longest tokens")):
            shown = " ".join(map(_shown, each[key])) or "none"
            notes.append(f"{each['name']}, {what}: {shown}")
    notes.append(
        f"Share of the embedding: in a model with {card['body_layers']} layers of 12 width² "
        f"({card['body_parameters'] / 1e6:.1f}M parameters) and tied embeddings."
    )
    return notes


def print_card(card: dict[str, Any], stream: TextIO | None = None) -> None:
    """Show the card: a table on a terminal, plain aligned lines elsewhere."""
    stream = stream or sys.stdout
    rows, notes = card_rows(card), card_notes(card)
    if stream.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table()
        for at, name in enumerate(rows[0]):
            table.add_column(Text(name), justify="right" if at else "left")
        for cells in rows[1:]:
            table.add_row(*(Text(cell) for cell in cells))
        console = Console(file=stream)
        console.print(table)
        for note in notes:
            console.print(Text(note))
        return
    widths = [max(_cells(row[at]) for row in rows) for at in range(len(rows[0]))]
    for first, *others in rows:
        line = [_padded(first, widths[0])]
        line += [" " * (width - _cells(cell)) + cell for cell, width in zip(others, widths[1:], strict=True)]
        print("  ".join(line).rstrip(), file=stream)
    print(*notes, sep="\n", file=stream)


def _rates(measured: dict[str, Any]) -> str:
    return f"{measured['characters_per_token'] or 0:.2f} / {measured['bytes_per_token'] or 0:.2f}"


def _covered(each: dict[str, Any], level: int) -> str:
    found = each[f"gb2312_level_{level}"]
    # Rounded down: 100 % means all.
    return f"{found['single_tokens']:,} ({found['single_tokens'] * 1000 // found['of'] / 10:.1f}%)"


def _shown(piece: str) -> str:
    if len(piece) > _SHOWN_CHARACTERS:
        return f"{piece[: _SHOWN_CHARACTERS // 2]!r}…×{len(piece)}"
    return repr(piece) if not piece.isalnum() else piece


def _cells(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _cells(text))
