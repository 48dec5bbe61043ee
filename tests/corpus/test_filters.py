"""Promises of the filters: each rule drops what it is for and keeps prose; a reason says why."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fangcun.config import FilterConfig, load_recipe
from fangcun.corpus.filters import RULES, Filter, Page
from fangcun.corpus.filters.page import WordList

PROSE = (
    "话说天下大势，分久必合，合久必分。周末七国分争，并入于秦。及秦灭之后，楚、汉分争，又并入于汉。汉朝自高祖斩白蛇而起义，一统天下，"
    "后来光武中兴，传至献帝，遂分为三国。推其致乱之由，殆始于桓、灵二帝。桓帝禁锢善类，崇信宦官。及桓帝崩，灵帝即位，大将军窦武、太傅陈蕃"
    "共相辅佐。时有宦官曹节等弄权，窦武、陈蕃谋诛之，机事不密，反为所害，中涓自此愈横。\n建宁二年四月望日，帝御温德殿。方升座，殿角狂风骤起。"
    "只见一条大青蛇，从梁上飞将下来，蟠于椅上。帝惊倒，左右急救入宫，百官俱奔避。须臾，蛇不见了。忽然大雷大雨，加以冰雹，落到半夜方止。"
)
ENGLISH = (
    "Call me Ishmael. Some years ago, having little or no money in my purse, and nothing particular to interest me on "
    "shore, I thought I would sail about and see the watery part of the world. It is a way I have of driving off the spleen "
    "and regulating the circulation. Whenever I find myself growing grim about the mouth, whenever it is a damp, drizzly "
    "November in my soul, then I account it high time to get to sea as soon as I can. With a philosophical flourish Cato "
    "throws himself upon his sword; I quietly take to the ship. There is nothing surprising in this."
)
DROPPED = [
    ("min_characters", 60, "太短了。"),
    ("max_characters", 100, PROSE),
    ("language", "zh", ENGLISH),
    ("language", "en", PROSE),
    ("language", "zh+en", "これは日本語の文章です。ひらがなとカタカナがあります。" * 3),
    ("language", "zh+en", "한국어 문장입니다. " * 9),
    ("max_duplicate_lines", 0.287, "\n".join(["首页的新闻很多。", "今天天气很好。"] * 6)),
    ("max_duplicate_ngrams", 0.127, PROSE[:150] * 2),
    ("max_top_ngram", 0.171, PROSE[:200] + "好好学习" * 20),
    ("max_symbols", 0.15, "★☆◆◇■□▲△●○" * 5 + PROSE[:100]),
    ("max_digits", 0.25, "13512345678 13612345678 " * 4 + PROSE[:60]),
    ("max_line_ends", 0.11, "\n".join(["新闻", "体育", "财经", "娱乐", "科技"] * 9)),
    ("min_punctuation", 0.02, "高清手机电脑批发价格报价图片品牌厂家" * 6),
    ("min_line_punctuation", 0.106, "\n".join(["新闻中心首页", "财经频道要闻", "今日热点专题"] * 3)),
    ("min_stop_characters", 2, "高清手机电脑批发价格报价图片品牌厂家" * 6),
    ("max_spam", 4.0, "精品高仿包包，加微信咨询，厂家直销，货到付款。" + PROSE[:100]),
    ("max_spam", 4.0, "某某电影 1080P 高清下载 迅雷下载 magnet:?xt=abc 百度网盘" + PROSE[:60]),
]


@pytest.mark.parametrize(("rule", "limit", "text"), DROPPED)
def test_each_rule_drops_what_it_is_for_and_says_why(rule: str, limit: object, text: str) -> None:
    found = Filter(FilterConfig(**{rule: limit})).reason(text)
    assert found is not None
    assert found[0] == rule
    assert any(character.isdigit() for character in found[1]), "a reason has a figure"


def test_every_rule_has_a_setting_a_test_and_the_other_way_round() -> None:
    assert set(RULES) == {field.name for field in dataclasses.fields(FilterConfig)} == {rule for rule, _, _ in DROPPED}


@pytest.mark.parametrize("preset", ["novel", "web", "news", "dialogue", "none"])
@pytest.mark.parametrize(
    "text",
    [PROSE, ENGLISH, PROSE.replace("。", "。\n"), "问：怎样学好数学？\n答：多做题，多想，不懂就问，" + PROSE[:80]],
)
def test_prose_is_kept_by_every_preset(preset: str, text: str) -> None:
    assert Filter(load_recipe("demo", ["--corpus.preset", preset]).recipe.filter).reason(text) is None


def test_without_limits_nothing_is_dropped() -> None:
    assert Filter(FilterConfig()).rules == []
    assert Filter(FilterConfig()).reason("") is None


@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from("天地 \n"), max_size=60), st.integers(0, 3))
def test_repeated_runs_are_counted_as_a_plain_loop_counts_them(text: str, log2_n: int) -> None:
    page, n = Page(text), 1 << log2_n
    bare = "".join(text.split())
    seen: set[str] = set()
    covered = np.zeros(len(bare), bool)
    counts: dict[str, int] = {}
    for start in range(len(bare) - n + 1):
        run = bare[start : start + n]
        if run in seen:
            covered[start : start + n] = True
        seen.add(run)
        counts[run] = counts.get(run, 0) + 1
    most = max(counts.values(), default=0)
    assert page.duplicate_ngrams(log2_n) == pytest.approx(covered.sum() / max(1, len(bare)))
    assert page.top_ngram(log2_n) == pytest.approx(most * n / len(bare) if most > 1 else 0)


@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from("加微信QQqb天 "), max_size=80))
def test_words_are_counted_as_a_plain_search_counts_them(text: str) -> None:
    words = ["加微信", "微信", "加qq", "qb", "信天"]
    expected = {w: n for w in words if (n := sum(text.lower().startswith(w, i) for i in range(len(text))))}
    assert dict(WordList(words).count(text)) == expected


def test_shares_are_those_of_the_characters() -> None:
    page = Page("天地 ab１2，★\n한")
    assert page.characters == 9
    assert page.digits == pytest.approx(2 / 9)
    assert page.symbols == pytest.approx(1 / 9)
    assert page.punctuation == pytest.approx(1 / 9)
    assert page.of_letters("han") == pytest.approx(2 / 5)
    assert page.of_letters("latin") == pytest.approx(2 / 5)
    assert page.of_letters("kana_hangul") == pytest.approx(1 / 5)


def test_random_hanzi_have_no_repeated_runs() -> None:
    draw = random.Random(0)
    text = "".join(chr(draw.randint(0x4E00, 0x9FFF)) for _ in range(20000))
    assert Page(text).duplicate_ngrams(4) == 0
