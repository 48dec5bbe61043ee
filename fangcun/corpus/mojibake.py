"""Text that was decoded in a wrong encoding and saved again ("ä½ å¥½", "ÄãºÃ", "浣犲ソ"), found and turned back.

A document is turned back as a whole or not at all, and only if turning the result wrong again gives the document, byte
for byte, and the result is what people write. Run it before `normalize`, which takes out control characters that here
are parts of letters.
"""

from __future__ import annotations

import re
from typing import Literal, get_args

from fangcun.corpus.common_hanzi import common_share
from fangcun.corpus.guess import accented_share

Kind = Literal["utf-8 as cp1252", "utf-8 as latin-1", "gbk as cp1252", "gbk as latin-1", "utf-8 as gbk"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_KIND: dict[str, Kind] = {kind: kind for kind in KINDS}

# cp1252 as browsers read it: the five bytes it leaves undefined stand for the control characters of latin-1.
_FROM_CP1252 = {
    ord(bytes([byte]).decode("cp1252")): byte
    for byte in range(0x80, 0xA0)
    if byte not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)
}
_TO_CP1252 = {byte: character for character, byte in _FROM_CP1252.items()}
_SPECIAL = "".join(map(chr, _FROM_CP1252))
_BEYOND_LATIN = re.compile(f"[^\x00-\xff{_SPECIAL}]")
_CP1252_ONLY = re.compile(f"[{_SPECIAL}]")
_NON_ASCII = re.compile("[^\x00-\x7f]")
_RUN = re.compile("[^\x00-\x7f]+")
# As much as is looked at before the whole document is: clean text fails here.
_SAMPLE_CHARACTERS = 64
# What wrong readings are not: letters of Europe, punctuation, symbols and signs, scripts of Asia, emoji.
_PLAIN = re.compile(
    "[\u00a0-\u017f\u0192\u0218-\u021b\u1e00-\u1eff\u2010-\u2027\u202f-\u203e\u20a0-\u20bf\u2100-\u22ff\u2460-\u27bf"
    "\u3000-\u30ff\u4e00-\u9fff\uac00-\ud7a3\ufe0f\uff01-\uffee\U0001f300-\U0001faff]"
)
_HANZI = re.compile("[\u3400-\u9fff]")
_WORDS = re.compile("[\u0370-\u052f\u0590-\u06ff\u0900-\u0dff\u0e00-\u0eff]{2,}")
# An accented capital at the end of a word of capitals with a mark behind it (CAFÉ», IRMÃ…) is clean, and reads as
# one letter.
_CAPITAL_AND_MARK = re.compile(f"(?<=[A-Z])[\xc2-\xdf][\x80-\xbf{_SPECIAL}](?![A-Za-z])")
_COMMON_ENOUGH = 0.35
_FEW_HANZI = 3
_HARDLY_ACCENTED = 0.1
_FEW_CHARACTERS = 8
_HARDLY_COMMON = 0.2
_LOSSY_SAMPLE_CHARACTERS = 128
_REPLACED = re.compile("(?:锟斤拷|\ufffd)+")


def garble(text: str, kind: Kind) -> str:
    """`text` written in the one encoding and read in the other. Raises UnicodeError where that has no result."""
    written, _, read = kind.partition(" as ")
    data = text.encode("gb18030" if written == "gbk" else written)
    if read == "gbk":
        return data.decode("gb18030")
    as_latin1 = data.decode("latin-1")
    return as_latin1.translate(_TO_CP1252) if read == "cp1252" else as_latin1


def propose(text: str) -> tuple[str, Kind] | None:
    """The text turned back and how it had been garbled, or None for text that is clean, lossy or not plainly garbled.

    Always `garble(*propose(text)) == text`. Clean Chinese costs a look at 64 characters, from the first one beyond ASCII on, clean
    text of accented letters one failed decoding.
    """
    if text.isascii():
        return None
    if not _BEYOND_LATIN.search(text):
        return _from_latin(text)
    first = _NON_ASCII.search(text)
    return _from_gbk(text, first.start() if first else 0)


def lost_characters(text: str) -> int:
    """How many places hold what a lossy decoding left: U+FFFD, or the 锟斤拷 that two of them become. They stay lost."""
    return len(_REPLACED.findall(text))


def is_beyond_repair(text: str) -> bool:
    """Whether the document is UTF-8 read as GBK (浣犲ソ, 锛, 銆) with bytes lost on the way, so that nothing turns it back.

    Judged by its first 128 characters from the first one beyond ASCII on.
    """
    first = _NON_ASCII.search(text)
    if not first:
        return False
    sample = text[first.start() : first.start() + _LOSSY_SAMPLE_CHARACTERS]
    if common_share(sample)[0] >= _HARDLY_COMMON:
        return False
    share, count = common_share(sample.encode("gb18030", "ignore").decode("utf-8", "ignore"))
    return count >= _FEW_CHARACTERS and share >= _COMMON_ENOUGH


def _from_latin(text: str) -> tuple[str, Kind] | None:
    read = "cp1252" if _CP1252_ONLY.search(text) else "latin-1"
    try:
        data = text.translate(_FROM_CP1252).encode("latin-1") if read == "cp1252" else text.encode("latin-1")
    except UnicodeEncodeError:
        return None
    readings = [("utf-8", "utf-8", _is_plausible)]
    if accented_share(data) < _HARDLY_ACCENTED:
        readings.append(("gbk", "gb18030", _is_chinese))
    for written, codec, plausible in readings:
        try:
            repaired = data.decode(codec)
        except UnicodeDecodeError:
            continue
        kind = _KIND[f"{written} as {read}"]
        if plausible(text, repaired) and _gives(repaired, kind, text):
            return repaired, kind
    return None


def _from_gbk(text: str, first: int) -> tuple[str, Kind] | None:
    sample = text[first : first + _SAMPLE_CHARACTERS]
    try:
        _utf8_prefix(sample.encode("gb18030"))
        repaired = text.encode("gb18030").decode("utf-8")
    except UnicodeError:
        return None
    kind: Kind = "utf-8 as gbk"
    return (repaired, kind) if _is_chinese(text, repaired) and _gives(repaired, kind, text) else None


def _utf8_prefix(data: bytes) -> None:
    """Raise UnicodeDecodeError unless `data` is UTF-8 up to a character cut at its end."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data":
            raise


def _gives(repaired: str, kind: Kind, text: str) -> bool:
    try:
        return garble(repaired, kind) == text
    except UnicodeError:
        return False


def _is_plausible(text: str, repaired: str) -> bool:
    """Whether UTF-8 that came out of a document of Latin letters and signs is what people write."""
    if _CAPITAL_AND_MARK.search(text):
        return False
    # é, a no-break space and » make one hanzi, but hardly a common one.
    hanzi = _HANZI.findall(repaired)
    if 0 < len(hanzi) < _FEW_HANZI and common_share("".join(hanzi))[0] < _COMMON_ENOUGH:
        return False
    beyond = "".join(_RUN.findall(repaired))
    plain = len(_PLAIN.findall(beyond)) + sum(map(len, _WORDS.findall(repaired)))
    return plain >= 0.9 * len(beyond)


def _is_chinese(text: str, repaired: str) -> bool:
    """Whether what came out is Chinese: the hanzi every text is made of, at least two characters, fewer than before."""
    share, count = common_share(repaired)
    return count >= 2 and share >= _COMMON_ENOUGH and len(repaired) < len(text)
