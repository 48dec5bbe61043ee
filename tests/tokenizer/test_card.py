"""The report card: figures that can be counted by hand, the same in table, JSON and picture."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fangcun.tokenizer import Tokenizer, train_char
from fangcun.tokenizer.card import KINDS, OWN, body_parameters, report_card, report_cards, shipped_text, short_names
from fangcun.tokenizer.card_view import page, plain, rows, svg
from fangcun.tokenizer.gb2312 import level_1, level_2


@pytest.fixture(scope="module")
def folders(bpe: Tokenizer, char: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    base = tmp_path_factory.mktemp("cards")
    bpe.save(base / "one & only" / "tokenizer")
    char.save(base / "char")
    return [base / "one & only", base / "char"]


def test_the_levels_are_those_of_the_standard() -> None:
    assert (len(level_1()), len(level_2())) == (3755, 3008)
    assert level_1()[0] == "啊" and level_1()[-1] == "座" and level_2()[0] == "亍" and level_2()[-1] == "齄"
    assert len({*level_1(), *level_2()}) == 3755 + 3008


def test_each_shipped_text_is_of_its_kind_and_some_kilobytes() -> None:
    for kind in KINDS:
        assert 1000 < len(shipped_text(kind).encode()) < 8000
    for kind in ("modern", "classical", "poetry"):
        text = shipped_text(kind)
        assert sum("一" <= character <= "鿿" for character in text) > 0.7 * len(text)
    assert shipped_text("english").isascii()
    assert sum(character.isdigit() for character in shipped_text("digits")) > 0.4 * len(shipped_text("digits"))


def test_characters_a_token_are_one_where_each_character_is_a_token() -> None:
    text = level_1() + "".join(shipped_text(kind) for kind in KINDS)
    card = report_card(train_char([text]), [level_1(), "啊啊"], width=100)
    assert {found["characters_per_token"] for found in card["texts"].values()} == {1.0}
    assert card["texts"][OWN]["characters"] == 3757
    assert card["gb2312"]["level_1"] == 1.0 and card["gb2312"]["level_2"] < 0.2
    ordinary = card["vocab_size"] - card["special_tokens"]
    assert card["unused_ids"] == {"on": OWN, "ids": ordinary - 3755, "share": round(1 - 3755 / ordinary, 4)}
    embedding = card["vocab_size"] * 100
    assert card["embedding"]["share"] == round(embedding / (embedding + body_parameters(100)), 4)


def test_round_trip_is_told_and_the_first_text_that_fails(bpe: Tokenizer, char: Tokenizer) -> None:
    assert report_card(bpe)["round_trip"]["failing"] == 0
    found = report_card(char)["round_trip"]
    assert found["failing"] > 0 and found["first_failing"] == shipped_text("modern")


def test_hanzi_count_where_a_space_is_put_in_front(sentencepiece_models: dict[str, str]) -> None:
    (card,) = report_cards([sentencepiece_models["bpe"]])
    pieces = set(single_characters(sentencepiece_models["bpe"]))
    hanzi = sum(character in pieces for character in level_1())
    assert 0 < card["gb2312"]["level_1"] == round(hanzi / 3755, 4)


def single_characters(path: str) -> list[str]:
    from fangcun.tokenizer import import_tokenizer

    return [piece.lstrip("▁") for piece in import_tokenizer(path).backend.get_vocab() if len(piece.lstrip("▁")) == 1]


def test_the_longest_tokens_are_named_chinese_ones_apart(bpe: Tokenizer) -> None:
    longest = report_card(bpe)["longest"]
    for words in longest.values():
        assert words and len(words) <= 10 and [len(w) for w in words] == sorted(map(len, words), reverse=True)
    assert max(map(len, longest["chinese"])) <= 4  # the run of hanzi that it was trained with
    assert "".join(longest["chinese"]).isalpha() and not "".join(longest["chinese"]).isascii()


def test_table_json_and_picture_say_the_same(folders: list[Path]) -> None:
    cards = report_cards(folders, lambda tokenizer: ["天下大势"])
    assert [card["name"] for card in cards] == ["one & only", "char"] == rows(cards)[0][1:]
    assert json.loads(json.dumps(cards)) == cards
    shown, picture, whole = plain(cards), svg(cards), page(cards)
    texts = [element.text or "" for element in ElementTree.fromstring(picture).iter()]
    for card in cards:
        for found in card["texts"].values():
            value = f"{found['characters_per_token']:.2f}"
            assert value in shown and value in texts and value in whole
    assert f"characters/token, {OWN}" in shown and "http" not in whole.replace("http://www.w3.org/2000/svg", "")
    assert "one &amp; only" in whole


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(lambda p: Path("/", *p)), unique=True))
def test_no_two_tokenizers_have_the_same_name(paths: list[Path]) -> None:
    names = short_names(paths)
    assert len(set(names)) == len(paths)
    assert all(str(path).endswith(name) for path, name in zip(paths, names, strict=True))


def test_a_hundred_percent_is_said_of_all_alone(char: Tokenizer) -> None:
    card = {"name": "it", **report_card(char)}
    card["gb2312"] = {"level_1": round(3753 / 3755, 4), "level_2": 1.0}
    cells = {row[0]: row[1] for row in rows([card])}
    assert cells["GB2312 level 1 as one token"] == "99.9%"
    assert cells["GB2312 level 2 as one token"] == "100.0%"
