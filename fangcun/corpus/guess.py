"""Which encoding a window of bytes is in, by what is valid and by how common the characters are that it gives.

Nearly any pair of bytes is some hanzi in GB18030 and in Big5, so validity alone tells little: the right reading is
the one that is made of the hanzi every text is made of. What is decided on too little is marked as uncertain.
"""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

from fangcun.corpus.common_hanzi import common_share

# Big5 as Windows writes it: with the seven ETEN hanzi and the euro sign.
CODECS = {"utf-8": "utf-8", "gb18030": "gb18030", "big5": "cp950", "utf-16-le": "utf-16-le", "utf-16-be": "utf-16-be"}
# surrogateescape stands one of these in for each byte that does not decode; NUL never occurs in text.
BAD = re.compile("[\ud800-\udfff\x00]+")
_ASCII = bytes(range(128))
_NOT_TEXT_BYTES = bytes([0, *range(128, 256)])
_ODD_SHARE = 0.1
_ASCII_TEXT = re.compile(r"[\t\n\r\x20-\x7e]")
_KANA = re.compile("[\u3041-\u30fe]")
_HIGH_BYTES = re.compile(rb"[\x80-\xff]+")
_ACCENTED = re.compile(rb"(?<![\x80-\xff])[\x80-\xff][A-Za-z]")
_HARDLY_BAD = 0.01
_FEW_BAD = 0.05
_MOSTLY_BAD = 0.2
# Wrong readings of 16 characters and more stay below the first, right ones above the second.
_HARDLY_COMMON = 0.2
_COMMON = 0.25
_PLAIN_UTF16 = 0.4
_FEW_CHARACTERS = 8


class Guess(NamedTuple):
    """`name` is utf-8, gb18030, big5, utf-16-le or utf-16-be; `certain` is False where another is nearly as likely."""

    name: str
    certain: bool = True


def _read(probe: bytes, name: str) -> tuple[str, float]:
    """The text, and bytes that do not decode over bytes that are not ASCII. A character cut at the end is not counted."""
    text = codecs.getincrementaldecoder(CODECS[name])("surrogateescape").decode(probe, final=False)
    bad = sum(len(run.group()) - run.group().count("\0") for run in BAD.finditer(text))
    return BAD.sub("", text), bad / max(1, len(probe.translate(None, _ASCII)))


def guess_encoding(probe: bytes) -> Guess:
    """utf-8, gb18030 or big5 for a window of bytes that is not all ASCII.

    Text of another encoding read as UTF-8 is bad nearly everywhere; damaged UTF-8 is bad here and there. Where nothing
    fits, the answer is utf-8, so that the bytes are reported as broken rather than turned into random hanzi.
    """
    if _is_utf8(probe):
        return Guess("utf-8")
    as_utf8, utf8_bad = _read(probe, "utf-8")
    readings: list[tuple[float, float, str, int]] = []
    for name in ("gb18030", "big5"):
        text, bad = _read(probe, name)
        # In a few characters of GB18030 some pairs of bytes are UTF-8 by chance; that nothing is wrong with them decides.
        if bad == 0 or (utf8_bad > _MOSTLY_BAD and bad < _FEW_BAD):
            common, count = common_share(text)
            # Kana in GB18030 (and in EUC-JP) are the most common hanzi of Big5.
            kana = len(_KANA.findall(text)) / max(1, count) if name == "gb18030" else 0.0
            readings.append((common + kana, common, name, count))
    readings.sort(key=lambda reading: -reading[0])
    if not readings:
        return Guess("utf-8")
    share, common, name, count = readings[0]
    utf8_share = common_share(as_utf8)[0]
    if utf8_bad <= _MOSTLY_BAD and (utf8_share >= share or (utf8_bad <= _HARDLY_BAD and share < _COMMON)):
        return Guess("utf-8")
    if share < _HARDLY_COMMON and accented_share(probe) > 0.5:
        return Guess("utf-8")
    second = readings[1][0] if len(readings) > 1 else 0.0
    return Guess(name, count >= _FEW_CHARACTERS and common >= _COMMON and share >= 2 * second)


def accented_share(data: bytes) -> float:
    """Of the runs of bytes beyond ASCII, how many are one byte before a letter, as accented letters of Latin-1 are.

    Each of these makes a hanzi together with that letter, in GB18030 and in Big5.
    """
    return len(_ACCENTED.findall(data)) / max(1, len(_HIGH_BYTES.findall(data)))


def guess_utf16(head: bytes) -> Guess | None:
    """utf-16-le or utf-16-be for the beginning of a file without a byte order mark, or None when it is not plainly that."""
    head = head[: len(head) // 2 * 2]
    # Half of the bytes of English text are NUL, and a good part of those of Chinese is beyond ASCII; in ASCII with a
    # damaged byte or two, hardly any is.
    odd_bytes = len(head) - len(head.translate(None, _NOT_TEXT_BYTES))
    if odd_bytes < _ODD_SHARE * len(head) or (b"\0" not in head and _is_utf8(head)):
        return None
    found: list[tuple[float, str, int]] = []
    for name in ("utf-16-le", "utf-16-be"):
        text = head.decode(name, "replace")
        plain = len(_ASCII_TEXT.findall(text))
        share, count = common_share(text)
        if len(text) >= _FEW_CHARACTERS and "\0" not in text:
            found.append(((plain + share * count) / len(text), name, len(text)))
    share, name, characters = max(found, default=(0.0, "", 0))
    return Guess(name, characters >= 2 * _FEW_CHARACTERS) if share >= _PLAIN_UTF16 else None


def _is_utf8(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, final=False)
    except UnicodeDecodeError:
        return False
    return True
