"""Cleaning: composed, stable, and nothing that changes what is read."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fangcun.corpus import normalize

# Characters that the rules are about, beside anything else.
_DIRTY = st.sampled_from("\r\n\t \u3000\u00a0\u200b\ufeff\u2028\x85\x0b\x00\u0301e\u1161\u1112\u212b，。中a\u037e")
_TEXTS = st.lists(st.one_of(_DIRTY, st.characters()), max_size=60).map("".join)


@given(_TEXTS)
def test_cleaning_twice_changes_nothing(text: str) -> None:
    once = normalize(text)
    assert normalize(once) == once


@given(_TEXTS)
def test_clean_text_is_composed_and_can_be_written(text: str) -> None:
    clean = normalize(text)
    assert unicodedata.is_normalized("NFC", clean)
    clean.encode("utf-8")
    assert "\r" not in clean and "\ufeff" not in clean and "\n\n\n\n" not in clean


@given(st.text(alphabet="，。！？：；（）“”‘’《》１２ＡＢ０％～中文字", max_size=40))
def test_full_width_characters_stay_as_they_are(text: str) -> None:
    assert normalize(text) == text


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("a\r\nb\rc\x0cd", "a\nb\nc\nd"),
        ("\ufeff中\u200b文\x00\x07", "中文"),
        ("　　话说\n\t　且说", "话说\n且说"),
        ("    def f():\n\treturn 1", "    def f():\n\treturn 1"),
        ("甲　乙", "甲　乙"),
        ("a  \nb\t\n", "a\nb"),
        ("a\n\n\n\n\n\nb", "a\n\n\nb"),
        ("e\u200b\u0301", "é"),
        ("👩\u200d🔬", "👩\u200d🔬"),
        ("a\ud800b", "ab"),
        (" \n　\n", ""),
    ],
)
def test_each_rule_does_what_it_says(dirty: str, clean: str) -> None:
    assert normalize(dirty) == clean
