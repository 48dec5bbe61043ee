"""Promises of cleaning: a clean text stays as it is, each rule does what it says and no more, `none` is the identity."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fangcun.config import CleanConfig, load_recipe, preset_names
from fangcun.corpus.clean import Cleaner
from fangcun.corpus.clean.boilerplate import compile_sets, drop_contents, drop_lines, drop_tail
from fangcun.corpus.clean.lines import unwrap
from fangcun.corpus.clean.markup import strip_markup
from fangcun.corpus.clean.personal import mask
from fangcun.corpus.clean.width import curl_quotes, join_hanzi, narrow_letters
from fangcun.corpus.filters import Filter

PRESETS = {name: load_recipe("demo", ["--corpus.preset", name]).recipe for name in preset_names()}
# What the rules look at, so that Hypothesis meets their corners.
PIECES = st.sampled_from(
    [*"天地玄黄，。！？：；「」『』“”\"'（）　 \t\n\r\x0b\x85\u200b\u00a0\ufeffＡ１z9-—*&<>/@+", "\n\n\n\n\n", "第一回 甲", "第二回 乙\n", "第三回",
     "更新时间:2007-11-16", "责任编辑：王", "返回搜狐，查看更多", "上一章", "www.abc.com", "&nbsp;", "&amp;lt;br&gt;", "<br/>", "<p class=x>", "13812345678", "a@b.cn",
     "e\u0301", "é", "한국", "עברית", "😀‍👩", "\ud800", "臺灣", "[PHONE]", "abc def ", "天下大势分久必合合久必分周末七国分争并入于秦及秦灭之后\n"]
)  # fmt: skip
TEXTS = st.lists(PIECES | st.text(max_size=3), max_size=40).map("".join)


@pytest.mark.parametrize("name", PRESETS)
@settings(max_examples=150, deadline=None)
@given(text=TEXTS)
@example(text="&amp;amp;amp;amp;amp;amp;amp;amp;amp;amp;lt;br&gt;")
def test_cleaning_a_clean_text_changes_nothing(name: str, text: str) -> None:
    cleaner = Cleaner(PRESETS[name].clean)
    once = cleaner.clean(text)
    again = cleaner.clean(once.text)
    assert again.text == once.text
    assert not again.taken
    once.text.encode()


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_none_is_the_identity_on_composed_text(text: str) -> None:
    composed = unicodedata.normalize("NFC", text)
    assert Cleaner(PRESETS["none"].clean).clean(composed).text == composed
    assert Filter(PRESETS["none"].filter).reason(composed) is None


KINDS = {
    "han": "天下大势，分久必合，合久必分。周末七国分争，并入于秦。及秦灭之后，楚、汉分争，又并入于汉。" * 6,
    "english": "It was the best of times, it was the worst of times, it was the age of wisdom and of foolishness. " * 5,
    "mixed": "我们用 PyTorch 训练一个 small language model，它在 CPU 上也能跑。The rest is history.\n" * 5,
    "traditional": "話說天下大勢，分久必合，合久必分。周末七國分爭，併入於秦。及秦滅之後，楚、漢分爭，又併入於漢。" * 6,
    "emoji and mathematics": "😀👩‍👩‍👧 ∀x∈ℝ: x²≥0 ⟹ ∑ᵢ xᵢ² ≥ 0 🎉 ∫₀¹ f(x) dx = ½\n" * 9,
    "right to left": "שלום עולם، مرحبا بالعالم. 123\n" * 9,
}


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_text_passes_through_every_preset(name: str, kind: str) -> None:
    recipe = PRESETS[name]
    cleaned = Cleaner(recipe.clean).clean(KINDS[kind])
    Filter(recipe.filter).reason(cleaned.text)
    if kind in ("han", "english", "mixed", "traditional"):
        assert cleaned.text == KINDS[kind].strip("\n ") or name == "none"


def test_full_width_letters_become_ascii_and_punctuation_stays() -> None:
    assert narrow_letters("ＡＢＣ１２３，。！？（）：～“”") == "ABC123，。！？（）：～“”"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("他说：「好。」", "他说：“好。”"),
        ("『天』", "‘天’"),
        ('他说："好。"她说："不。"', "他说：“好。”她说：“不。”"),
        ('一个"没有配对', '一个"没有配对'),
        ('print("hello")', 'print("hello")'),
    ],
)
def test_quotes_are_curled_where_they_come_in_pairs(text: str, expected: str) -> None:
    assert curl_quotes(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("今天 天气 很 好 。 明天", "今天天气很好。明天"),
        ("用 Python 写", "用 Python 写"),
        ("第一回　宴桃园", "第一回　宴桃园"),
        ("a b  c", "a b  c"),
        ("好\n坏", "好\n坏"),
    ],
)
def test_spaces_go_between_hanzi_only(text: str, expected: str) -> None:
    assert join_hanzi(text) == expected


def test_lines_cut_at_a_fixed_width_are_joined_and_verse_is_not() -> None:
    prose = "话说天下大势分久必合合久必分周末七国分争并入于秦及秦灭之后楚汉分争又并入于汉汉朝自高祖斩白蛇而起义一统天下后来光武中兴传至献帝遂分为三国推其致乱之由殆始于桓灵二帝桓帝禁锢善类崇信宦官及桓帝崩灵帝即位大将军窦武太傅陈蕃共相辅佐时有宦官曹节等弄权窦武陈蕃谋诛之机事不密反为所害中涓自此愈横建宁二年四月望日帝御温德殿方升座殿角狂风骤起只见一条大青蛇从梁上飞将下来蟠于椅上帝惊倒左右急救入宫百官俱奔避"
    wrapped = "\n".join(prose[start : start + 20] for start in range(0, len(prose), 20))
    assert unwrap(wrapped + "。\n\n" + wrapped + "。") == prose + "。\n\n" + prose + "。"
    english = "\n".join(["the quick brown fox jumps over the lazy dog and runs"] * 12)
    assert unwrap(english) == english.replace("\n", " ")
    verse = "\n".join(["床前明月光", "疑是地上霜", "举头望明月", "低头思故乡"] * 5)
    assert unwrap(verse) == verse
    listed = "\n".join(["第一回 宴桃园豪杰三结义 斩黄巾英雄首立功名"] * 12)
    assert unwrap(listed) == listed


NOVEL_LINES = [
    "更新时间:2007-11-16 7:55:51 本章字数:4804", "------章节内容开始-------", "[三国演义 / 罗贯中 著 ]", "作品仅供读者预览,请在下载24小时内删除，不得用作商业用途；",
    "请收藏本站：www.abc.com", "手机用户请浏览m.abc.com阅读，更优质的阅读体验。", "www.abc123.com", "求推荐票！求收藏！", "上一章 ← 返回目录 → 下一章", "（本章完）", "- 12 -", "第 3 页 共 20 页",
]  # fmt: skip
NOVEL_TEXT = [
    "他翻到上一章，又看了一遍。",
    "请收藏家来看看。",
    "第三页上写着什么？",
    "本章说的是孙悟空。",
    "他求收藏家卖给他。",
    "全书写完了，他很高兴。",
    "三",
    "12",
]
WEB_LINES = [
    "您现在的位置：首页 > 新闻 > 社会", "首页 > 新闻 > 正文", "上一篇：某某某", "相关阅读", "返回顶部", "扫码关注我们的微信公众号", "责任编辑：王小明", "来源：新华网 作者：李四",
    "分享到：", "Copyright © 2018 abc.com All Rights Reserved", "京ICP备10231287号-5", "转载请注明来源：abc", "关闭窗口 | 打印本页", "广告热线：010-12345678",
]  # fmt: skip
WEB_TEXT = [
    "他的位置在首页左边。",
    "来源：他说不知道。",
    "编辑部的故事很有意思。",
    "时间：一个永恒的话题？",
    "上一篇写得很好。",
    "未经他的允许，我不能走。",
]


@pytest.mark.parametrize(("name", "lines", "text"), [("novel", NOVEL_LINES, NOVEL_TEXT), ("web", WEB_LINES, WEB_TEXT)])
def test_lines_of_the_frame_go_and_sentences_like_them_stay(name: str, lines: list[str], text: list[str]) -> None:
    pattern = compile_sets([name])
    assert pattern is not None
    kept, taken = drop_lines("\n".join(lines), pattern)
    assert taken == lines, kept
    assert drop_lines("\n".join(text), pattern) == ("\n".join(text), [])


def test_a_table_of_contents_goes_and_the_first_chapter_stays() -> None:
    contents = "\n".join(f"第{n}回 某某" for n in "一二三四五六")
    kept, taken = drop_contents(f"书名\n{contents}\n\n第一回 某某\n话说天下大势。\n第二回 某某\n且说")
    assert kept == "书名\n\n第一回 某某\n话说天下大势。\n第二回 某某\n且说"
    assert len(taken) == 6
    assert drop_contents("第一回 甲\n文\n第二回 乙\n文")[1] == []


def test_closing_words_behind_the_last_sentence_go() -> None:
    assert drop_tail("震源深度9千米。返回搜狐，查看更多 责任编辑：") == (
        "震源深度9千米。",
        ["返回搜狐，查看更多 责任编辑："],
    )
    assert drop_tail("责任编辑：王五说，这件事还没有完，大家要继续努力。")[1] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("甲&nbsp;乙&lt;丙", "甲\u00a0乙<丙"),
        ("视频&gt日韩", "视频>日韩"),
        ("<p>甲</p><b>乙</b><br/>丙", "\n甲\n乙\n丙"),
        ("a < b and c > d, x<y", "a < b and c > d, x<y"),
        ("AT&T、R&D &copy=1", "AT&T、R&D &copy=1"),
        ("List<String> x; vector<int> v;", "List<String> x; vector<int> v;"),
    ],
)
def test_html_goes_and_what_only_looks_like_it_stays(text: str, expected: str) -> None:
    assert strip_markup(text) == expected


def test_personal_data_are_masked_and_other_numbers_stay() -> None:
    kinds = ["phone", "id", "email"]
    assert mask("电话13812345678，或 +86 138-1234-5678", kinds)[0] == "电话[PHONE]，或 [PHONE]"
    assert mask("身份证11010519491231002X。", kinds) == ("身份证[ID]。", 1)
    assert mask("写信给 wang.xm@mail.example.com。", kinds)[0] == "写信给 [EMAIL]。"
    plain = "订单110105194912310021，圆周率3.1415926535，2018年12月31日，12345678901，微博@小王"
    assert mask(plain, kinds) == (plain, 0)
    assert mask("电话13812345678", ["email"]) == ("电话13812345678", 0)


def test_traditional_becomes_simplified_or_the_package_is_named(monkeypatch) -> None:
    pytest.importorskip("opencc")
    assert Cleaner(CleanConfig(simplified=True)).clean("話說天下大勢，乾隆").text == "话说天下大势，乾隆"


def test_the_web_copy_of_a_novel_cleans_to_the_clean_one(shared_data: Path) -> None:
    """Within half a percent of the characters, white space aside."""
    import difflib

    novels = shared_data / "novels"
    dirty = (novels / "sanguoyanyi_webcopy.txt").read_text(encoding="utf-8")
    clean = "".join((novels / "sanguoyanyi.txt").read_text(encoding="utf-8").split())
    text = "".join(Cleaner(PRESETS["novel"].clean).clean(dirty).text.split())

    # Characters of one sentence are compared, sentence by sentence: the whole at once takes minutes.
    def sentences(text: str) -> list[str]:
        return text.replace("。", "。\n").split("\n")

    matcher = difflib.SequenceMatcher(None, sentences(clean), sentences(text), autojunk=False)
    wrong = 0
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind != "equal":
            left, right = "".join(matcher.a[a:b]), "".join(matcher.b[c:d])
            inner = difflib.SequenceMatcher(None, left, right, autojunk=False)
            wrong += sum(max(j - i, n - m) for op, i, j, m, n in inner.get_opcodes() if op != "equal")
    assert wrong / len(clean) < 0.005
