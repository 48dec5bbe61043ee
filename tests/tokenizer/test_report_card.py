"""Promises of the report card: figures that can be checked by hand, a table and a picture that hold them all."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from tokenizer_text import TEXT

from fangcun.errors import FangcunError
from fangcun.tokenizer import Tokenizer, train_char
from fangcun.tokenizer.card_plot import card_svg, write_plot
from fangcun.tokenizer.card_table import card_notes, card_rows, print_card
from fangcun.tokenizer.gb2312 import level_1, level_2
from fangcun.tokenizer.report_card import KINDS, body_parameters, names_of, report_card, sample_text


@pytest.fixture(scope="module")
def card(bpe: Tokenizer, char: Tokenizer) -> dict[str, Any]:
    return report_card({"bpe": bpe, "<b>&char": char}, lambda: [TEXT, TEXT], width=64)


def test_gb2312_has_its_two_levels() -> None:
    assert (len(level_1()), level_1()[0], level_1()[-1]) == (3755, "啊", "座")
    assert (len(level_2()), level_2()[0], level_2()[-1]) == (3008, "亍", "齄")
    assert not set(level_1()) & set(level_2())


@pytest.mark.parametrize("kind", KINDS)
def test_the_texts_come_with_the_package_and_are_a_few_kilobytes(kind: str) -> None:
    text = sample_text(kind)
    assert 1_500 <= len(text.encode()) <= 6_000
    assert "\ufffd" not in text and "\r" not in text


def test_a_tokenizer_of_characters_has_one_character_a_token_and_the_hanzi_of_its_text() -> None:
    everything = [sample_text(kind) for kind in KINDS]
    tokenizer = train_char(everything)
    (only,) = report_card({"it": tokenizer}, lambda: everything[:1])["tokenizers"]
    assert all(only["texts"][kind]["characters_per_token"] == 1 for kind in KINDS)
    for kind, text in zip(KINDS, everything, strict=True):
        assert only["texts"][kind]["bytes_per_token"] == pytest.approx(len(text.encode()) / len(text), abs=1e-4)
    known = set("".join(everything))
    assert only["gb2312_level_1"]["single_tokens"] == len(known & set(level_1()))
    assert only["gb2312_level_2"]["single_tokens"] == len(known & set(level_2()))
    assert only["own_text"]["ids_unused"] == tokenizer.vocab_size - len(set(everything[0]))
    assert only["round_trip"]["texts"] == len(KINDS) and only["round_trip"]["rare_lines"] < 7
    assert len(only["longest_han"]) == 10 and set(map(len, only["longest_han"])) == {1}


def test_the_embedding_is_weighed_against_the_stated_body(card: dict[str, Any], bpe: Tokenizer) -> None:
    first = card["tokenizers"][0]
    assert card["body_parameters"] == body_parameters(64) == 8 * 12 * 64 * 64
    assert first["embedding_parameters"] == bpe.vocab_size * 64
    whole = bpe.vocab_size * 64 + 8 * 12 * 64 * 64
    assert first["embedding_share"] == pytest.approx(bpe.vocab_size * 64 / whole, abs=1e-4)


def test_longest_tokens_are_the_vocabularys_and_none_is_special(card: dict[str, Any], bpe: Tokenizer) -> None:
    first = card["tokenizers"][0]
    assert first["longest_han"] and all(len(piece) <= 4 for piece in first["longest_han"])
    lengths = [len(piece) for piece in first["longest"]]
    assert lengths == sorted(lengths, reverse=True)
    assert bpe.eos_token not in first["longest"]


def test_without_own_text_nothing_is_said_of_it(bpe: Tokenizer) -> None:
    card = report_card({"bpe": bpe})
    assert card["tokenizers"][0]["own_text"] is None
    assert not any("own text" in row[0] for row in card_rows(card))
    assert "own text" not in card_svg(card)


def test_plain_lines_hold_every_row_and_a_terminal_gets_a_table(card: dict[str, Any]) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    plain, table = io.StringIO(), Terminal()
    print_card(card, plain)
    print_card(card, table)
    lines = plain.getvalue().splitlines()
    assert len(lines) == len(card_rows(card)) + len(card_notes(card))
    for row, line in zip(card_rows(card), lines, strict=False):
        assert all(cell in line for cell in row)
    assert "─" in table.getvalue() and "<b>&char" in table.getvalue()


def test_the_picture_is_whole_and_stands_alone(card: dict[str, Any], tmp_path: Path) -> None:
    root = ElementTree.fromstring(card_svg(card))
    shown = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert any(text and text.startswith("<b>&char") for text in shown)
    for each in card["tokenizers"]:
        for kind in KINDS:
            assert f"{each['texts'][kind]['characters_per_token']:.2f}" in shown
    names = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert names <= {"svg", "title", "rect", "text"}
    write_plot(card, tmp_path / "new" / "card.html")
    page = (tmp_path / "new" / "card.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and card_svg(card) in page
    with pytest.raises(FangcunError, match=r"\.png"):
        write_plot(card, tmp_path / "card.png")


def test_names_are_short_and_told_apart(tmp_path: Path) -> None:
    paths = [tmp_path / "a" / "qwen" / "tokenizer.json", tmp_path / "b" / "qwen", tmp_path / "run" / "tokenizer"]
    assert list(names_of(paths)) == ["qwen", "b/qwen", "run"]
    assert list(names_of(paths).values()) == paths
