"""The encodings of Chinese text are told apart on the stream, wherever blocks are cut."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fangcun.corpus import encoding
from fangcun.corpus.encoding import StreamDecoder
from fangcun.errors import FangcunError

PROSE = "话说天下大势，分久必合，合久必分。\n周末七国分争，并入于秦。𠀀\n"


def decode(data: bytes, *, setting: str = "auto", block_bytes: int = 7) -> tuple[str, str, list[tuple[int, int]]]:
    bad: list[tuple[int, int]] = []
    decoder = StreamDecoder("x.txt", setting, lambda line, count: bad.append((line, count)))
    blocks = [data[i : i + block_bytes] for i in range(0, len(data), block_bytes)]
    text = "".join(decoder.decode(blocks))
    return text, decoder.name, bad


@pytest.mark.parametrize("codec", ["utf-8", "gb18030"])
@pytest.mark.parametrize("block_bytes", [1, 2, 3, 5, 1000])
def test_both_encodings_are_found_for_any_block_size(codec: str, block_bytes: int) -> None:
    assert decode((PROSE * 3).encode(codec), block_bytes=block_bytes) == (PROSE * 3, codec, [])


@pytest.mark.parametrize("codec", ["utf-8", "gb18030"])
@pytest.mark.parametrize("shift", range(5))
def test_a_character_cut_at_the_border_of_the_probe_does_not_mislead(
    codec: str, shift: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "PROBE_BYTES", 20 + shift)
    text = "plain " * 10 + "合久必分" * 20
    assert decode(text.encode(codec), block_bytes=20 + shift) == (text, codec, [])


def test_a_long_ascii_beginning_does_not_decide() -> None:
    text = "plain ascii\n" * 50_000 + PROSE
    assert decode(text.encode("gb18030"), block_bytes=256 * 1024)[:2] == (text, "gb18030")


def test_a_byte_order_mark_is_named_and_removed() -> None:
    assert decode(PROSE.encode("utf-8-sig")) == (PROSE, "utf-8 with BOM", [])
    assert decode(("\ufeff" + PROSE).encode("gb18030"))[0] == PROSE
    assert decode(PROSE.encode("utf-8-sig"), setting="utf-8")[0] == PROSE


def test_bad_bytes_are_left_out_and_counted_with_their_line() -> None:
    data = (PROSE * 5).encode() + b"\xff\xfe" + PROSE.encode() + "\n中".encode()[:-1]
    text, name, bad = decode(data, block_bytes=11)
    assert (text, name) == (PROSE * 6 + "\n", "utf-8")
    assert bad[0][0] == 11 and bad[-1][0] == 14 and sum(count for _, count in bad) == 4


def test_an_existing_replacement_character_is_not_a_bad_byte() -> None:
    assert decode("中\ufffd文".encode())[2] == []


def test_random_bytes_are_bad_in_every_encoding() -> None:
    data = random.Random(0).randbytes(200_000)
    _, _, bad = decode(data, block_bytes=65536)
    assert sum(count for _, count in bad) > 0.05 * len(data)


SIMPLIFIED = (
    "春天来了，小河边的柳树长出了新叶。孩子们在学校里学习，老师对他们说：“你们要好好读书，将来为国家做事。”"
    "那个地方的人都知道，山上有一座老房子，里面住着一位会讲故事的老人。经过多年的发展，这里的经济和文化都有了很大的变化，"
    "人们的生活也比过去好多了。他想了一会儿，便问道：“我们什么时候可以动身？”大家没有说话，只是看着远处的灯光。\n"
)
TRADITIONAL = (
    "春天來了，小河邊的柳樹長出了新葉。孩子們在學校裡學習，老師對他們說：「你們要好好讀書，將來為國家做事。」"
    "那個地方的人都知道，山上有一座老房子，裏面住著一位會講故事的老人。經過多年的發展，這裡的經濟和文化都有了很大的變化，"
    "人們的生活也比過去好多了。他想了一會兒，便問道：「我們什麼時候可以動身？」大家沒有說話，只是看著遠處的燈光。\n"
)
CODECS = {"utf-8": "utf-8", "gb18030": "gb18030", "big5": "cp950", "utf-16-le": "utf-16-le", "utf-16-be": "utf-16-be"}


@given(
    st.sampled_from(
        [(SIMPLIFIED, name) for name in CODECS if name != "big5"] + [(TRADITIONAL, name) for name in CODECS]
    ),
    st.integers(0, 100),
    st.integers(20, 400),
    st.sampled_from(["", "1998: ", "<p>\n"]),
    st.integers(1, 64),
)
def test_prose_of_each_encoding_is_recognised_and_read_back(
    sample: tuple[str, str], start: int, length: int, before: str, block_bytes: int
) -> None:
    prose, name = sample
    text = before + (prose * 3)[start : start + length]
    assert decode(text.encode(CODECS[name]), block_bytes=block_bytes) == (text, name, [])


@given(st.text(st.characters(codec="gb18030", exclude_characters="\r\0"), min_size=1, max_size=30))
def test_a_short_text_is_read_back_or_what_is_wrong_is_said(text: str) -> None:
    for codec in ("gb18030", "big5", "utf-16"):
        try:
            data = text.encode(codec)
        except UnicodeEncodeError:
            continue
        read, name, bad = decode(data)
        # Bytes that are whole UTF-8 by chance cannot be told from UTF-8.
        if read != text and name != "utf-8":
            assert bad or "uncertain" in name, (read, name)


@given(st.integers(4, 80), st.integers(4, 80), st.permutations(["utf-8", "gb18030", "gb18030"]), st.booleans())
def test_a_file_of_two_encodings_is_reported(one: int, other: int, codecs: list[str], lines: bool) -> None:
    parts = [SIMPLIFIED[:one], SIMPLIFIED[20 : 20 + other], SIMPLIFIED[7 : 7 + one]]
    data = b"".join(part.encode(codec) + b"\n" * lines for part, codec in zip(parts, codecs, strict=True))
    _, name, bad = decode(data)
    assert bad or "," in name


def test_an_uncertain_encoding_is_marked() -> None:
    assert decode("鬯鬰".encode("gb18030"))[:2] == ("鬯鬰", "gb18030, uncertain")
    assert decode(SIMPLIFIED.encode("gb18030"))[1] == "gb18030"


def test_latin_1_is_reported_as_broken_and_not_read_as_hanzi() -> None:
    text = "Le café était fermé, et la façade décorée.\n" * 20
    read, name, bad = decode(text.encode("latin-1"))
    assert name == "utf-8" and read.isascii() and sum(count for _, count in bad) == 160 - 40


def test_japanese_in_gb18030_is_read_and_in_other_encodings_never_certain() -> None:
    text = "これは日本語のテキストです。漢字とかなが混ざっています。学校へ行きます。\n" * 3
    assert decode(text.encode("gb18030"))[0] == text
    for codec in ("euc-jp", "shift_jis"):
        read, name, bad = decode(text.encode(codec))
        assert read != text and (bad or "uncertain" in name)


@pytest.mark.parametrize("text", ["Le café à Noël, où l’été", "Schöne Grüße aus Köln", "Łódź żółć", "Привет, мир"])
def test_an_encoding_that_is_not_ours_is_reported(text: str) -> None:
    codec = "cp1251" if text.startswith("П") else "cp1250" if text.startswith("Ł") else "cp1252"
    _, name, bad = decode((text + ", plain words between\n").encode(codec) * 9)
    assert bad or "uncertain" in name


def test_a_damaged_byte_in_english_is_not_utf_16() -> None:
    draw = random.Random(0)
    words = [
        "come",
        "to",
        "keep",
        "my",
        "word",
        "and",
        "the",
        "time",
        "of",
        "bees",
        "very",
        "good",
        "or",
        "else",
        "take",
        "that",
        "at",
        "once",
    ]
    for _ in range(2000):
        data = bytearray(" ".join(draw.choices(words, k=draw.randrange(3, 40))).encode())
        data[draw.randrange(len(data))] = draw.choice([0, 0xE9, 0xFF])
        assert not decode(bytes(data), block_bytes=4096)[1].startswith("utf-16")


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("setting", ["auto", "utf-16"])
@pytest.mark.parametrize(
    "text", [PROSE * 3, "plain English only\r\n" * 9, "a" * 5000 + PROSE], ids=["zh", "en", "late"]
)
def test_utf_16_is_read_with_and_without_a_mark(codec: str, setting: str, text: str) -> None:
    read, name, bad = decode(text.encode(codec), setting=setting, block_bytes=1001)
    assert (read, bad) == (text.replace("\r\n", "\n"), []) and name.startswith("utf-16-")


def test_bad_units_of_utf_16_are_left_out_and_counted() -> None:
    half = b"\x00\xd8"
    data = (PROSE * 3).encode("utf-16") + half + PROSE.encode("utf-16-le") + b"\x41"
    text, name, bad = decode(data)
    assert (text, name) == (PROSE * 4, "utf-16-le")
    assert [line for line, _ in bad] == [7, 9] and [count for _, count in bad] == [2, 1]


def test_ascii_with_a_stray_nul_is_not_utf_16() -> None:
    assert decode(b"Bush hid the facts\0, and so on and so on" * 9)[1] == "utf-8"


def test_a_mark_that_contradicts_the_setting_is_an_error() -> None:
    with pytest.raises(FangcunError, match=r"x\.txt is UTF-16.*corpus\.encoding is big5"):
        decode(PROSE.encode("utf-16"), setting="big5")
    with pytest.raises(FangcunError, match=r"UTF-32.*iconv"):
        decode(PROSE.encode("utf-32"))


@pytest.mark.parametrize(("setting", "codec"), [("big5", "cp950"), ("gb18030", "gb18030"), ("utf-16", "utf-16-le")])
def test_a_named_encoding_is_taken_at_its_word(setting: str, codec: str) -> None:
    assert decode("甲乙".encode(codec), setting=setting)[0] == "甲乙"


@pytest.mark.parametrize(
    ("path", "codecs"),
    [
        ("novels/hongloumeng.txt", ["gb18030", "utf-16-le", "utf-16-be"]),
        ("web/skypile_sample.jsonl", ["gb18030", "utf-16-le", "utf-16-be"]),
        ("stories/tiny_chinese_stories.csv", ["gb18030", "cp950", "utf-16-le"]),
        ("poetry/tangshi/*.json", ["gb18030", "cp950"]),
    ],
)
def test_pieces_of_real_files_are_recognised_in_any_encoding(shared_data: Path, path: str, codecs: list[str]) -> None:
    files = sorted(shared_data.glob(path))
    text = files[0].read_text(encoding="utf-8")
    draw, uncertain = random.Random(0), 0
    for _ in range(300):
        start = draw.randrange(len(text))
        piece = text[start : start + draw.randrange(60, 400)]
        if sum(character > "\x7f" for character in piece) < 24:
            continue
        for codec in codecs:
            # Characters that Big5 does not have are left out beforehand.
            data = piece.encode(codec, "ignore")
            read, name, bad = decode(data, block_bytes=4096)
            assert (read, bad) == (data.decode(codec), []) and "partly" not in name
            # Two lines of a poem may be too little to be certain.
            assert name.removesuffix(", uncertain") == {"cp950": "big5"}.get(codec, codec)
            uncertain += "uncertain" in name
    assert uncertain < 6


@given(st.text(alphabet="ab\r\n中", max_size=50), st.integers(1, 9))
def test_line_ends_become_one_kind_wherever_blocks_are_cut(text: str, block_bytes: int) -> None:
    assert decode(text.encode(), setting="utf-8", block_bytes=block_bytes)[0] == text.replace("\r\n", "\n").replace(
        "\r", "\n"
    )
