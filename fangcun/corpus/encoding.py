"""Bytes to text on the stream: UTF-8 (with or without BOM) and GB18030 told apart, bad bytes counted and left out.

While only ASCII has passed nothing needs deciding, both encodings agree. At the first other byte the following 256 KiB
are looked at as a whole; a character cut at the border of that window counts for neither side.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Iterator

from fangcun.errors import FangcunError

PROBE_BYTES = 256 * 1024
# surrogateescape stands one of these in for each byte that does not decode; NUL never occurs in text.
_BAD = re.compile("[\udc80-\udcff\x00]+")
_ASCII = bytes(range(128))
_NON_ASCII = re.compile(rb"[\x80-\xff]")
_HARDLY_BAD = 0.01
_FEW_BAD = 0.05
_MOSTLY_BAD = 0.2


def _bad_share(probe: bytes, encoding: str) -> float:
    """Bytes that do not decode, over bytes that are not ASCII. A character cut at the end is not counted."""
    text = codecs.getincrementaldecoder(encoding)("surrogateescape").decode(probe, final=False)
    bad = sum(len(run.group()) - run.group().count("\0") for run in _BAD.finditer(text))
    return bad / max(1, len(probe.translate(None, _ASCII)))


def guess_encoding(probe: bytes) -> str:
    """`utf-8` or `gb18030` for a window of bytes that is not all ASCII.

    GB18030 text read as UTF-8 is bad nearly everywhere; damaged UTF-8 is bad here and there. Where neither fits, the
    answer is utf-8, so that the bytes are reported as broken rather than turned into random hanzi.
    """
    as_utf8 = _bad_share(probe, "utf-8")
    if as_utf8 <= _HARDLY_BAD:
        return "utf-8"
    as_gb18030 = _bad_share(probe, "gb18030")
    # In a few characters of GB18030 some pairs of bytes are UTF-8 by chance; that nothing is wrong with them decides.
    if as_gb18030 == 0 or (as_utf8 > _MOSTLY_BAD and as_gb18030 < _FEW_BAD):
        return "gb18030"
    return "utf-8"


class StreamDecoder:
    """Decodes the blocks of one file.

    `encoding` is `auto`, `utf-8` or `gb18030`. `on_bad(line, count)` is told of each run of bytes that is left out:
    its line from 1, and how many bytes. `name` says what was found (`utf-8`, `utf-8 with BOM`, `gb18030`).
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
            if len(self._pending) < 4 and not final:
                return ""
            block, self._pending = self._pending, b""
            block = self._read_mark(block)
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
        return self._decoder.decode(block, final)

    def _read_mark(self, block: bytes) -> bytes:
        if block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise FangcunError(
                f"{self.place} is UTF-16; expected UTF-8 or GB18030. Convert it: iconv -f UTF-16 -t UTF-8 IN > OUT"
            )
        if self.name != "gb18030" and block.startswith(codecs.BOM_UTF8):
            self._choose("utf-8")
            self.name = "utf-8 with BOM"
            return block[len(codecs.BOM_UTF8) :]
        if self.name != "utf-8" and block.startswith(b"\x84\x31\x95\x33"):
            self._choose("gb18030")
            return block[4:]
        if self.name != "auto":
            self._choose(self.name)
        return block

    def _choose(self, encoding: str) -> None:
        self.name = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)("surrogateescape")

    def _clean(self, text: str) -> str:
        """Take the stand-ins for bad bytes out, count them and keep the line number."""
        if "\0" in text or not _encodable(text):
            last = 0
            line = self._line
            for run in _BAD.finditer(text):
                line += text.count("\n", last, run.start())
                last = run.start()
                self._on_bad(line, len(run.group()))
            self._line += text.count("\n")
            return _BAD.sub("", text)
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
