"""Text decoded in a wrong encoding is turned back exactly, and clean text of any language is left alone."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fangcun.config.schema import CorpusConfig
from fangcun.corpus import ReadReport, read_documents
from fangcun.corpus.mojibake import KINDS, Kind, garble, is_beyond_repair, lost_characters, propose

PROSE = "他想了一会儿，便问道：“我们什么时候可以动身？”大家没有说话，只是看着远处的灯光。"
CLEAN = [
    PROSE,
    "那個地方的人都知道，山上有一座老房子，裡面住著一位會講故事的老人。",
    "浣熊、锟铻剑、鐨与銆都是可以写的字。",
    "联通",
    "Le café était fermé ; « à bientôt », dit-elle, et la façade… « déjà\xa0! »",
    "«\xa0CAFÉ\xa0»",
    "CAFÉ»",
    "café\xa0»",
    "une idée, la légende",
    "Straße, Größe, Übermut: „Äpfel“ und Müllers Öl — für 5°",
    "Tiếng Việt có dấu, và nhiều chữ cái lạ: ă â ê ô ơ ư đ",
    "¿Qué? ¡Olé! El niño y la cigüeña",
    "IRMÃ… NÃO",
    "x²±3 µm, 2×½ ≤ ∑ αβγ ∈ ℝ, Ø±0.1",
    "£100–£200 ™©® “naïve”",
    "😀👩‍👩‍👧 ok ☕️",
    "Привет, мир",
    "日本語のテキストです。",
    "plain ASCII",
    "",
]


@pytest.mark.parametrize("text", CLEAN)
def test_clean_text_is_left_alone(text: str) -> None:
    assert propose(text) is None
    assert not is_beyond_repair(text) and not lost_characters(text)


@pytest.mark.parametrize(
    ("garbled", "text", "kind"),
    [
        ("ä½\xa0å¥½", "你好", "utf-8 as cp1252"),
        ("ä½\xa0å¥½ï¼\x8cä¸\x96ç\x95\x8c", "你好，世界", "utf-8 as latin-1"),
        ("ÄãºÃ", "你好", "gbk as latin-1"),
        ("浣犲ソ", "你好", "utf-8 as gbk"),
        ("cafÃ©", "café", "utf-8 as latin-1"),
        ("itâ€™s", "it’s", "utf-8 as cp1252"),
        ("ÐŸÑ€Ð¸Ð²ÐµÑ‚", "Привет", "utf-8 as cp1252"),
        ("ðŸ˜€", "😀", "utf-8 as cp1252"),
        ("Tiáº¿ng Viá»‡t", "Tiếng Việt", "utf-8 as cp1252"),
    ],
)
def test_the_known_faces_of_mojibake_are_turned_back(garbled: str, text: str, kind: Kind) -> None:
    found = propose(garbled)
    # Where both readings give the same, either name is right.
    assert found and found[0] == text and found[1].split(" as ")[0] == kind.split(" as ")[0]


@given(
    st.sampled_from(KINDS),
    st.integers(0, len(PROSE) - 1),
    st.integers(12, 200),
    st.text("abc <>\n1", max_size=5),
    st.text("abc <>\n1", max_size=5),
)
def test_garbled_prose_is_turned_back_exactly(kind: Kind, start: int, length: int, before: str, after: str) -> None:
    text = before + (PROSE * 6)[start : start + length] + after
    try:
        garbled = garble(text, kind)
    except UnicodeError:
        assume(kind == "utf-8 as gbk")
        # A byte is left over at the end of the run: that cannot be turned back, but be told.
        if len(text) > 20:
            assert is_beyond_repair(text.encode().decode("gbk", "replace"))
        return
    found = propose(garbled)
    assert found and found[0] == text


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x17F), max_size=60) | st.text(max_size=60))
def test_whatever_is_proposed_gives_the_text_again(text: str) -> None:
    found = propose(text)
    assert found is None or (garble(*found) == text and found[0] != text)


def test_lost_characters_are_counted() -> None:
    assert lost_characters("中\ufffd\ufffd文锟斤拷锟斤拷。") == 2


def test_words_with_accents_are_no_hanzi_and_no_mojibake() -> None:
    words = [
        "été",
        "légende",
        "façade",
        "noël",
        "über",
        "müde",
        "schön",
        "größe",
        "años",
        "niñez",
        "coração",
        "irmã",
        "à",
        "la",
        "crème",
        "ça",
        "où",
        "île",
    ]
    draw = random.Random(0)
    for _ in range(2000):
        text = draw.choice([" ", ", ", "\n", "-"]).join(draw.choices(words, k=draw.randrange(1, 12)))
        for variant in (text, text.upper(), text.title(), f"«{text}»", f"“{text}”", f"{text}\xa0!", f"{text}…"):
            assert propose(variant) is None, variant


@pytest.mark.parametrize("folder", ["novels", "web", "stories", "english", "poetry/tangshi"])
def test_real_clean_documents_get_no_proposal(shared_data: Path, folder: str) -> None:
    config = CorpusConfig(paths=[str(shared_data / folder)], txt_split="blank_lines", max_broken_share=0.5)
    for document in read_documents(config, ReadReport()):
        assert propose(document.text) is None, document.source
        assert not is_beyond_repair(document.text), document.source


def test_short_pieces_of_real_documents_get_no_proposal(shared_data: Path) -> None:
    for name in ("web/wanjuan_sample.jsonl", "english/wiki_demo.txt", "poetry/mengxue"):
        for document in read_documents(CorpusConfig(paths=[str(shared_data / name)]), ReadReport()):
            for piece in re.split(r"[\n。，！？、；,;]", document.text):
                found = propose(piece)
                # Two ideographic spaces that a web page really holds in this form.
                assert found is None or piece == "ã€€ã€€", (piece, found)


def test_ftfy_agrees_on_garbled_latin_text() -> None:
    ftfy = pytest.importorskip("ftfy")
    config = ftfy.TextFixerConfig(uncurl_quotes=False, fix_character_width=False, normalization="NFC")
    for text in ("Le café était fermé.", "it’s “fine”, isn’t it…", "Größe über alles schön", "Tiếng Việt có dấu"):
        garbled = garble(text, "utf-8 as cp1252")
        found = propose(garbled)
        assert found and found[0] == text == ftfy.fix_text(garbled, config)
