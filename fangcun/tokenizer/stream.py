"""Text from ids as they arrive: only whole characters, each at the earliest moment.

A hanzi is often spread over several tokens. Decoding each token alone would print U+FFFD for the pieces; these
decoders hold the bytes back until the character is complete.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable
from typing import Protocol

from fangcun.tokenizer.decoding import ByteTable


class StreamDecoder(Protocol):
    """The concatenation of all pushes and the flush is `Tokenizer.decode` of all the ids."""

    def push(self, token_id: int) -> str:
        """The text that this id completes; empty while a character is still arriving."""
        ...

    def flush(self) -> str:
        """What is left at the end: U+FFFD where the ids stop inside a character. The decoder then starts anew."""
        ...


class ByteStream:
    """Stream decoding over a byte table: constant time and memory an id."""

    def __init__(self, table: ByteTable, *, skip_special_tokens: bool = True, context: Iterable[int] = ()) -> None:
        self._table = table
        self._skipped = table.special if skip_special_tokens else frozenset()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._at_start = table.strips_space
        for token_id in context:
            self.push(token_id)

    def push(self, token_id: int) -> str:
        if not 0 <= token_id < len(self._table.pieces) or token_id in self._skipped:
            return ""
        piece = self._table.pieces[token_id]
        if not piece:
            return ""
        if self._at_start:
            self._at_start = False
            piece = piece[1:] if piece.startswith(b" ") else piece
        return self._decoder.decode(piece)

    def flush(self) -> str:
        rest = self._decoder.decode(b"", True)
        self._decoder.reset()
        self._at_start = self._table.strips_space
        return rest


class WindowStream:
    """Stream decoding through a decode function, for decoders without a byte table.

    A short window of ids is decoded twice, with and without the newest; the difference is the new text. The window
    moves on whenever the text ends in a whole character.
    """

    LONGEST_HOLD = 16
    """Ids held back at most for one character; after that U+FFFD is in the text itself."""

    def __init__(self, decode: Callable[[list[int]], str], *, context: Iterable[int] = ()) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._done = 0
        for token_id in context:
            self.push(token_id)

    def push(self, token_id: int) -> str:
        self._ids.append(token_id)
        text = self._decode(self._ids)
        if text.endswith("\ufffd") and len(self._ids) - self._done < self.LONGEST_HOLD:
            return ""
        return self._advance(text)

    def _advance(self, text: str) -> str:
        new = text[len(self._decode(self._ids[: self._done])) :]
        if new:
            # The last emitted ids stay in the window: some decoders treat the first token differently.
            self._ids = self._ids[self._done :]
            self._done = len(self._ids)
        return new

    def flush(self) -> str:
        rest = self._advance(self._decode(self._ids)) if self._done < len(self._ids) else ""
        self._ids, self._done = [], 0
        return rest
