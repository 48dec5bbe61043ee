"""A document, and how a text file splits into documents: the whole file, blank lines, a separator, chapters."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from fangcun.errors import ConfigError

_NUMBER = "[零〇一二三四五六七八九十百千两0-9０-９]{1,9}"
# A heading is short and stands alone or parted by white space: "第一回合战罢，" in the prose is none.
CHAPTER_PATTERN = rf"^(?=.{{1,60}}$)\s*(?:正文\s*)?(?:第{_NUMBER}[回章卷节節]|楔子|序章|引子|尾声)(?:[\s：:].*)?$"


@dataclass
class Document:
    """One text with where it comes from."""

    text: str
    source: str
    """`file`, `file:line`, or `file:line/record` for JSON."""
    id: str
    """First 16 hexadecimal digits of the text's sha256: the same text has the same id anywhere."""

    @property
    def characters(self) -> int:
        """Of the text."""
        return len(self.text)

    def packed(self) -> tuple[bytes, int]:
        """A line of JSON, and the UTF-8 bytes of the text."""
        return packed_line(self.text, self.source, self.id), len(self.text.encode())


class PackedDocument(Document):
    """A document as it lies on disk: what is only passed on is not unpacked."""

    def __init__(self, line: bytes, id: str, characters: int, size_bytes: int) -> None:
        self.id, self._line, self._characters, self._size_bytes = id, line, characters, size_bytes

    def __getattr__(self, name: str) -> Any:
        if name not in ("text", "source"):
            raise AttributeError(name)
        record = orjson.loads(self._line)
        self.text, self.source = record["text"], record["source"]
        return record[name]

    @property
    def characters(self) -> int:
        """Of the text."""
        return self._characters

    def packed(self) -> tuple[bytes, int]:
        """A line of JSON, and the UTF-8 bytes of the text."""
        return self._line, self._size_bytes


def document_id(text: str | bytes) -> str:
    """16 hexadecimal digits of the sha256 of the text, in UTF-8."""
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()[:16]


def packed_line(text: str, source: str, id: str) -> bytes:
    """A document as a line of JSON."""
    return orjson.dumps({"text": text, "source": source, "id": id}, option=orjson.OPT_APPEND_NEWLINE)


def split_lines(blocks: Iterable[str]) -> Iterator[str]:
    """Lines without their end. Only `\\n` ends a line (not U+2028 and the like); linear in time for long lines."""
    pieces: list[str] = []
    for block in blocks:
        first, *rest = block.split("\n")
        pieces.append(first)
        if rest:
            yield "".join(pieces)
            yield from rest[:-1]
            pieces = [rest[-1]]
    if last := "".join(pieces):
        yield last


def split_text(
    blocks: Iterable[str], how: str, separator: str | None, chapter_pattern: str | None
) -> Iterator[tuple[int, str]]:
    """Yield (line of its start, text) for each document of a text file.

    `how` is file, blank_lines, separator or chapter. Except for `file`, no more than one document is held.
    Raises ConfigError for a missing separator or a pattern that does not compile.
    """
    if how == "file":
        yield 1, "".join(blocks)
    elif how == "blank_lines":
        yield from _by_blank_lines(blocks)
    elif how == "separator":
        yield from _by_separator(blocks, separator)
    else:
        yield from _by_chapter(blocks, chapter_pattern)


def _by_blank_lines(blocks: Iterable[str]) -> Iterator[tuple[int, str]]:
    start, held = 1, []
    for number, line in enumerate(split_lines(blocks), 1):
        if line.strip():
            start = start if held else number
            held.append(line)
        elif held:
            yield start, "\n".join(held)
            held = []
    if held:
        yield start, "\n".join(held)


def _by_separator(blocks: Iterable[str], separator: str | None) -> Iterator[tuple[int, str]]:
    if not separator:
        raise ConfigError(
            "corpus.txt_split is 'separator', but corpus.separator is not given. Expected the string between documents, e.g. --corpus.separator '<|endoftext|>'."
        )
    line, held, tail = 1, [], ""
    for block in blocks:
        # Only the seam and the new block are searched, so that a long document costs no more than its length.
        window = tail + block
        tail = window[max(0, len(window) - len(separator) + 1) :]
        held.append(block)
        if separator not in window:
            continue
        *documents, last = "".join(held).split(separator)
        for text in documents:
            yield line, text
            line += text.count("\n") + separator.count("\n")
        held, tail = [last], last[max(0, len(last) - len(separator) + 1) :]
    yield line, "".join(held)


def _by_chapter(blocks: Iterable[str], chapter_pattern: str | None) -> Iterator[tuple[int, str]]:
    try:
        pattern = re.compile(chapter_pattern or CHAPTER_PATTERN)
    except re.error as error:
        raise ConfigError(
            f"corpus.chapter_pattern {chapter_pattern!r} is no regular expression ({error}). Expected one that matches a chapter's first line, e.g. '^第.+回'."
        ) from error
    start, held = 1, []
    for number, line in enumerate(split_lines(blocks), 1):
        if pattern.search(line):
            if held:
                yield start, "\n".join(held)
            start, held = number, []
        held.append(line)
    if held:
        yield start, "\n".join(held)
