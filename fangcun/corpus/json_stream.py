"""JSON of any size, value by value: a large array, values one after the other, or a single object.

The buffer holds the value being read and one block more, so memory does not grow with the file. A broken value is
reported and reading goes on at the next value that starts like it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import orjson

from fangcun.errors import FangcunError

MAX_RECORD_CHARACTERS = 64 * 1024 * 1024
_SPACE = re.compile(r"[\s\ufeff]*")
_SEPARATORS = re.compile(r"[\s,\ufeff]*")
_INDENT = re.compile(r"\n([ \t]*)$")
# Python's parser marks the place where it stopped; a value cut by the end of the buffer stops within this distance
# (the longest token it can be in the middle of is -Infinity), or inside a string that does not end.
_NEAR_END = 16
# Raw line ends inside strings are common in files made by hand.
_DECODER = json.JSONDecoder(strict=False)

Broken = Callable[[int, str, str, int], None]
"""Called with line, reason, excerpt, length of what is passed over."""


def parse_json(text: str) -> Any:
    """One JSON value; raises ValueError. Fast path first; then Python's parser, which takes raw line ends in strings."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        try:
            return json.loads(text, strict=False)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error


class _Buffer:
    """A window over blocks of text with a reading position and the line it is in."""

    def __init__(self, blocks: Iterable[str]) -> None:
        self.blocks = iter(blocks)
        self.text = ""
        self.at = 0
        self.ended = False
        self._line = 1
        self._counted = 0

    def more(self, characters: int = 1) -> bool:
        """Drop what was read, append at least so many characters. False when the input has ended."""
        pieces = []
        while characters > 0 and not self.ended:
            block = next(self.blocks, None)
            if block is None:
                self.ended = True
            else:
                pieces.append(block)
                characters -= len(block)
        if pieces:
            self.line()
            self.text = self.text[self.at :] + "".join(pieces)
            self.at = self._counted = 0
        return bool(pieces)

    def line(self) -> int:
        """Line of the reading position, from 1."""
        self._line += self.text.count("\n", self._counted, self.at)
        self._counted = self.at
        return self._line

    def skip(self, pattern: re.Pattern[str]) -> str:
        """Move over everything `pattern` matches, across blocks; the next character, or "" at the end."""
        while True:
            match = pattern.match(self.text, self.at)
            self.at = match.end() if match else self.at
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""


def stream_json(blocks: Iterable[str], place: str, on_broken: Broken) -> Iterator[tuple[int, Any]]:
    """Yield (line, value) for each element of a top-level array, or for each value of a sequence.

    Raises FangcunError for one value of more than 64 Mi characters: it cannot be read in bounded memory.
    """
    buffer = _Buffer(blocks)
    array = buffer.skip(_SPACE) == "["
    if array:
        buffer.at += 1
    while True:
        before = buffer.at
        character = buffer.skip(_SEPARATORS)
        if character == "":
            if array:
                on_broken(buffer.line(), "the array is not closed: the file ends in the middle", "", 0)
            return
        if array and character == "]":
            buffer.at += 1
            # Several arrays one after the other are read as one.
            if buffer.skip(_SPACE) == "[":
                buffer.at += 1
            else:
                array = False
            continue
        indent = _INDENT.search(buffer.text, min(before, buffer.at), buffer.at)
        yield from _read_value(buffer, place, indent.group(1) if indent else None, on_broken)


def _read_value(buffer: _Buffer, place: str, indent: str | None, on_broken: Broken) -> Iterator[tuple[int, Any]]:
    line = buffer.line()
    while True:
        try:
            value, end = _DECODER.raw_decode(buffer.text, buffer.at)
            # A number at the very end of the buffer ("1", "1.", "1e+") may go on in the next block.
            if end + 2 >= len(buffer.text) and not isinstance(value, (dict, list, str)) and buffer.more():
                continue
            buffer.at = end
            yield line, value
            return
        except RecursionError:
            reason = "nested too deeply"
            break
        except json.JSONDecodeError as error:
            reason = f"not valid JSON ({error.msg})"
            cut = error.msg.startswith("Unterminated string") or error.pos >= len(buffer.text) - _NEAR_END
            length = len(buffer.text) - buffer.at
            if not cut or not buffer.more(length):
                break
            if length > MAX_RECORD_CHARACTERS:
                raise FangcunError(
                    f"{place}:{line} starts a JSON value of more than {MAX_RECORD_CHARACTERS:,} characters, too large to be one document. "
                    "Turn the file into one array of records, or into JSON lines (.jsonl)."
                ) from None
    excerpt = buffer.text[buffer.at : buffer.at + 200]
    passed = _resynchronize(buffer, indent)
    on_broken(line, reason, excerpt, passed)


def _resynchronize(buffer: _Buffer, indent: str | None) -> int:
    """Move to the next value that starts as the broken one did; how many characters were passed over.

    A value on a line of its own is followed by one with the same indent; others by `},{`.
    """
    first = re.escape(buffer.text[buffer.at]) if buffer.text[buffer.at] in '{["' else '[{["]'
    pattern = re.compile(rf"(?<=\n){indent}{first}" if indent is not None else rf"(?<=[}}\],\s]){first}")
    passed = 0
    start = buffer.at + 1
    while True:
        match = pattern.search(buffer.text, start)
        if match:
            passed += match.start() - buffer.at
            buffer.at = match.start()
            return passed
        # Keep enough of the end for a match that the block border cuts.
        keep = min(len(buffer.text) - buffer.at, len(indent or "") + 2)
        passed += len(buffer.text) - keep - buffer.at
        buffer.at = len(buffer.text) - keep
        start = 0 if passed else 1
        if not buffer.more():
            passed += len(buffer.text) - buffer.at
            buffer.at = len(buffer.text)
            return passed
