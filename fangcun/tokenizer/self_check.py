"""A converted tokenizer beside the original library: mixed text on which both must give the same ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fangcun.errors import FangcunError
from fangcun.tokenizer.core import Tokenizer

EVERYDAY = (
    "",
    "话说天下大势，分久必合，合久必分。周末七国分争，并入于秦。",
    "人工智能（AI）在2024年发展很快！“你好”，她说：‘走吧……’",
    "第一回　宴桃园豪杰三结义\n\n　　斩黄巾英雄首立功\r\n",
    "The quick brown fox doesn't jump over 12,345 lazy dogs; it's 3.14 o'clock.",
    " leading and trailing spaces ",
    "def f(x):\n    if x > 0:\n\t\treturn {'a': [1, 2]}  # comment\n\n\n    return None\n",
    "混合 mixed 文本 with English 和 数字 2023年12月31日 https://example.org/a?b=c&d=%20",
    "皇國の興廢、此ノ一戰ニ在リ。안녕하세요 세계 Привет, мир! Ελληνικά",
    "a  b   c    d     e\n\n\n\n\tindented\n \n  \n",
    "==== ---- .... ____ 哈哈哈哈哈哈哈 !!!!!!! aaaaaaa 0000000000",
    "a literal </s> and <s> and <unk> and <|endoftext|> <|im_start|> in the text",
)
"""Text of the kind that every corpus has: a difference here is an error."""

RARE = (
    "🙂👍🏽👨‍👩‍👧‍👦🇨🇳 emoji ☺️ 1️⃣",
    "𠀀𠮷𪚥龘靐㐀〇々〻㈱℃㎡①Ⅳｱｲｳ",
    "ｆｕｌｌｗｉｄｔｈ　ＡＢＣ１２３ﬁ ligature ™ ½ ²",
    "e\u0301 a\u0308 が か\u3099 각 ᄀ\u1161 ำ नि ไทย العربية עברית",
    "\u00a0nbsp\u200bzero\u200dwidth\ufefbom\u2028line\u00adsoft",
    "\x01\x07\x1b control \x7f \ufffd replacement ▁ mark ▁▁",
    "한글\u11a8 ㄱㄴㄷ ﷽ ꙮ ʼn ǆ",
)
"""Rare characters and sequences: a difference here is a note."""


def compare(
    tokenizer: Tokenizer,
    original: Callable[[str], list[int]],
    library: str,
    texts: Iterable[str] = (),
    tie: Callable[[list[int], list[int]], bool] = lambda ours, theirs: False,
) -> list[str]:
    """Compare ids with those of `original`. Returns notes on rare differences; raises FangcunError on everyday ones.

    `texts` is text of the user's own corpus, where there is one: differences there are counted in a note. `tie` says
    whether two ways to cut a text are equally good, so that the choice between them is one of rounding.
    """
    notes = []
    odd = []
    for text in (*EVERYDAY, *RARE):
        ours, theirs = tokenizer.encode(text, special_tokens=False), original(text)
        if ours == theirs:
            continue
        if text in EVERYDAY and not tie(ours, theirs):
            raise FangcunError(
                f"The converted tokenizer does not give {library}'s ids: for {text!r} it gives {_around(ours, theirs)}. "
                "This model cannot be converted faithfully; use a tokenizer.json of it if there is one."
            )
        odd.append(text)
    if odd:
        notes.append(
            f"On unusual text the ids differ from {library}'s: in {len(odd)} of {len(EVERYDAY) + len(RARE)} test "
            f"lines, such as {odd[0]!r}."
        )
    count = differing = 0
    for text in texts:
        count += 1
        differing += tokenizer.encode(text, special_tokens=False) != original(text)
    if differing:
        notes.append(f"In {differing:,} of {count:,} blocks of the corpus the ids differ from {library}'s somewhere.")
    elif count:
        notes.append(f"Checked against {library} on {count:,} blocks of the corpus: the same ids.")
    return notes


def _around(ours: list[int], theirs: list[int]) -> str:
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    return f"…{ours[at : at + 5]}… where {theirs[at : at + 5]} was expected (position {at})"
