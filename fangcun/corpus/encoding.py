"""Bytes to text on the stream: UTF-8, UTF-16, GB18030 and Big5 told apart, bad bytes counted and left out.

While only ASCII has passed nothing needs deciding, all but UTF-16 agree. At the first other byte the following 256 KiB
are looked at as a whole; a character cut at the border of that window counts for no side. UTF-16 is told by its byte
order mark, or by the first 4 KiB where these are plain.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Iterator

from fangcun.corpus.guess import BAD, CODECS, Guess, guess_encoding, guess_utf16
from fangcun.errors import FangcunError

PROBE_BYTES = 256 * 1024
_HEAD_BYTES = 4096
_NON_ASCII = re.compile(rb"[\x80-\xff]")
_UTF16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
# Four hanzi of UTF-8 on end. In GB18030 and Big5 these twelve bytes would be six hanzi, each of a rare kind.
_UTF8_RUN = re.compile(rb"(?:[\xe3-\xe9\xef][\x80-\xbf]{2}){4}")
_BOM_GB18030 = b"\x84\x31\x95\x33"


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    """What surrogateescape is to the other encodings, for UTF-16, whose bad units may hold ASCII bytes."""
    assert isinstance(error, UnicodeDecodeError)
    return "\udc80" * (error.end - error.start), error.end


codecs.register_error("fangcun.stand_in", _stand_in)


class StreamDecoder:
    """Decodes the blocks of one file.

    `encoding` is `auto`, `utf-8`, `utf-16`, `gb18030` or `big5`. `on_bad(line, count)` is told of each run of bytes that
    is left out: its line from 1, and how many bytes. `name` says what was found (`utf-8`, `utf-8 with BOM`, `gb18030`,
    `big5`, `utf-16-le`, `utf-16-be`), with `, uncertain` where it was decided on too little, and `, partly utf-8` where
    UTF-8 stands in the middle of GB18030 or Big5 (it is read as the wrong hanzi; the file wants repair).
    """

    def __init__(self, place: str, encoding: str, on_bad: Callable[[int, int], None]) -> None:
        self.place = place
        self.name = encoding
        self._on_bad = on_bad
        self._decoder: codecs.IncrementalDecoder | None = None
        self._pending = b""
        self._line = 1
        self._at_start = True

    def decode(self, blocks: Iterable[bytes]) -> Iterator[str]:
        """Yield the text of `blocks`, line ends turned into `\\n`."""
        newlines = _Newlines()
        for block in blocks:
            if text := newlines.push(self._push(block, final=False)):
                yield self._clean(text)
        if text := newlines.push(self._push(b"", final=True), final=True):
            yield self._clean(text)

    def _push(self, block: bytes, *, final: bool) -> str:
        if self._at_start:
            self._pending += block
            if len(self._pending) < (_HEAD_BYTES if self.name in ("auto", "utf-16") else 4) and not final:
                return ""
            block, self._pending = self._pending, b""
            block = self._read_start(block)
            self._at_start = False
        if self._decoder is None:
            self._pending += block
            if self._pending.isascii():
                block, self._pending = self._pending, b""
                if final and self.name == "auto":
                    self.name = "utf-8"
                return block.decode("ascii")
            first = _NON_ASCII.search(self._pending)
            probe = self._pending[first.start() :] if first else b""
            if len(probe) < PROBE_BYTES and not final:
                return ""
            self._choose(guess_encoding(probe))
            block, self._pending = self._pending, b""
        assert self._decoder is not None
        if self.name in ("gb18030", "big5") and _UTF8_RUN.search(block):
            self.name += ", partly utf-8"
        return self._decoder.decode(block, final)

    def _read_start(self, block: bytes) -> bytes:
        """Choose by the byte order mark, which is taken off, by the setting, or by what is plainly UTF-16."""
        setting = self.name
        if block.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
            raise FangcunError(f"{self.place} is UTF-32. Convert it: iconv -f UTF-32 -t UTF-8 IN > OUT")
        if utf16 := _UTF16.get(block[:2]):
            if setting not in ("auto", "utf-16"):
                raise FangcunError(
                    f"{self.place} is UTF-16 by its byte order mark, but corpus.encoding is {setting}. Expected auto or utf-16 for this file."
                )
            self._choose(Guess(utf16))
            return block[2:]
        if setting in ("auto", "utf-8") and block.startswith(codecs.BOM_UTF8):
            self._choose(Guess("utf-8"))
            self.name = "utf-8 with BOM"
            return block[len(codecs.BOM_UTF8) :]
        if setting in ("auto", "gb18030") and block.startswith(_BOM_GB18030):
            self._choose(Guess("gb18030"))
            return block[len(_BOM_GB18030) :]
        if setting == "utf-16":
            self._choose(guess_utf16(block[:_HEAD_BYTES]) or Guess("utf-16-le", certain=False))
        elif setting != "auto":
            self._choose(Guess(setting))
        elif found := guess_utf16(block[:_HEAD_BYTES]):
            self._choose(found)
        return block

    def _choose(self, guess: Guess) -> None:
        self.name = guess.name if guess.certain else f"{guess.name}, uncertain"
        errors = "fangcun.stand_in" if guess.name.startswith("utf-16") else "surrogateescape"
        self._decoder = codecs.getincrementaldecoder(CODECS[guess.name])(errors)

    def _clean(self, text: str) -> str:
        """Take the stand-ins for bad bytes out, count them and keep the line number."""
        if "\0" in text or not _encodable(text):
            last = 0
            line = self._line
            for run in BAD.finditer(text):
                line += text.count("\n", last, run.start())
                last = run.start()
                self._on_bad(line, len(run.group()))
            self._line += text.count("\n")
            return BAD.sub("", text)
        self._line += text.count("\n")
        return text


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Newlines:
    """Turns CR LF and CR into LF, also where the two stand in different blocks."""

    def __init__(self) -> None:
        self._held = ""

    def push(self, text: str, *, final: bool = False) -> str:
        text = self._held + text
        self._held = ""
        if text.endswith("\r") and not final:
            text, self._held = text[:-1], "\r"
        return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
