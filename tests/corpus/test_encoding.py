"""UTF-8 and GB18030 are told apart on the stream, wherever blocks are cut."""

from __future__ import annotations

import random

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
    monkeypatch.setattr(encoding, "PROBE_BYTES", 3 + shift)
    text = "plain " * 10 + "合久必分" * 20
    assert decode(text.encode(codec), block_bytes=3 + shift) == (text, codec, [])


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


def test_utf_16_is_refused_with_the_command_that_converts() -> None:
    with pytest.raises(FangcunError, match=r"UTF-16.*iconv"):
        decode(PROSE.encode("utf-16"))


@given(st.text(alphabet="ab\r\n中", max_size=50), st.integers(1, 9))
def test_line_ends_become_one_kind_wherever_blocks_are_cut(text: str, block_bytes: int) -> None:
    assert decode(text.encode(), setting="utf-8", block_bytes=block_bytes)[0] == text.replace("\r\n", "\n").replace(
        "\r", "\n"
    )
