"""Bits per byte of any text: sliding windows over each document, exact totals by source and by script.

Bits per byte is the cross entropy of all tokens in bits over the UTF-8 bytes of the text, so it compares models with
different vocabularies. Where ids do not give the text back (<unk>, a normalising tokenizer) it says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fangcun.errors import FangcunError
from fangcun.evaluation.scoring import BATCH_TOKENS, Row, log_probability, predict_rows
from fangcun.evaluation.scripts import SCRIPTS, script_of_bytes, spread
from fangcun.generation import LanguageModel
from fangcun.tokenizer import Tokenizer

PROTOCOL = "fangcun-text-1"
"""Changes when a number would: each document by itself behind the start token (the beginning-of-document token where the
tokenizer names one, else the end-of-document token), all its tokens targets, its end none; windows as in `windows`."""

HELD_TOKENS = 1 << 18
"""Tokens gathered before they are read, so that windows of like length meet; documents are held whole."""


@dataclass
class Totals:
    """Sums over the documents of a source."""

    documents: int = 0
    tokens: int = 0
    bytes: int = 0
    nats: float = 0.0
    unfaithful: int = 0
    """Documents that the ids do not give back."""
    script_bits: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(SCRIPTS)))
    script_bytes: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(SCRIPTS), np.int64))

    def add(self, other: Totals) -> None:
        """Take the sums of another one in."""
        self.documents += other.documents
        self.tokens += other.tokens
        self.bytes += other.bytes
        self.nats += other.nats
        self.unfaithful += other.unfaithful
        self.script_bits += other.script_bits
        self.script_bytes += other.script_bytes

    @property
    def bits_per_byte(self) -> float | None:
        """None where there is no byte."""
        return self.nats / math.log(2) / self.bytes if self.bytes else None

    def record(self) -> dict[str, Any]:
        """As it stands in a JSON file. Of the scripts those that occur in documents that ids give back."""
        return {
            "bits_per_byte": self.bits_per_byte,
            "comparable": self.unfaithful == 0,
            "loss": self.nats / self.tokens if self.tokens else None,
            "documents": self.documents,
            "tokens": self.tokens,
            "bytes": self.bytes,
            "bytes_per_token": self.bytes / self.tokens if self.tokens else None,
            "documents_not_given_back": self.unfaithful,
            "scripts": {
                name: {"bits_per_byte": float(bits) / int(size), "bytes": int(size)}
                for name, bits, size in zip(SCRIPTS, self.script_bits, self.script_bytes, strict=True)
                if size
            },
        }


@dataclass
class TextMeasurement:
    """What a model is worth on a text."""

    stride: int
    total: Totals
    sources: dict[str, Totals]
    """In the order in which they came."""


def start_id(tokenizer: Tokenizer) -> int:
    """What stands before a document: its beginning token where there is one, else the end of the one before."""
    return tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id


def windows(n_tokens: int, block_size: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """(first, first target, end) of the windows over a document of `n_tokens` ids behind its start token.

    A window reads the ids `first` to `end` - 1 of the sequence (start token, ids) and predicts those from `first target`
    to `end`, so each of 1 … n_tokens is predicted once, after the first window from at least block_size - stride ids.
    """
    first, target = 0, 1
    while target <= n_tokens:
        end = min(first + block_size, n_tokens)
        yield first, target, end
        first, target = first + stride, end + 1


def check_stride(stride: int | None, block_size: int) -> int:
    """The stride, by default half of block_size. Raises FangcunError."""
    if stride is None:
        return max(1, block_size // 2)
    if not 1 <= stride <= block_size:
        raise FangcunError(
            f"stride is {stride}, expected 1 to block_size ({block_size}): a larger one would leave tokens out."
        )
    return stride


def measure_texts(
    model: LanguageModel,
    texts: Iterable[tuple[str, str]],
    *,
    stride: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
    done: Callable[[int], None] | None = None,
) -> TextMeasurement:
    """Bits per byte of (source, text) documents. Memory is bounded by the largest document and HELD_TOKENS.

    stride: tokens by which a window moves on; small ones give each token more context and cost more (default: half of
    block_size). done: called with the bytes of documents that are measured. Raises FangcunError: no text.
    """
    block_size = model.config.block_size
    step = check_stride(stride, block_size)
    found = TextMeasurement(step, Totals(), {})
    before = start_id(model.tokenizer)

    def measure(held: list[tuple[str, str, list[int]]]) -> None:
        rows = []
        for _, _, ids in held:
            sequence = [before, *ids]
            rows += [_row(sequence, *window) for window in windows(len(ids), block_size, step)]
        values = iter(predict_rows(model.model, rows, log_probability, batch_tokens=batch_tokens))
        for source, text, ids in held:
            parts = [next(values)[:, 0] for _ in windows(len(ids), block_size, step)]
            log_probabilities = np.concatenate(parts) if parts else np.zeros(0)
            totals = _document(model.tokenizer, text, ids, -log_probabilities)
            found.sources.setdefault(source, Totals()).add(totals)
            found.total.add(totals)
        if done is not None:
            done(found.total.bytes)

    for held in _hold(model.tokenizer, texts):
        measure(held)
    if not found.total.tokens:
        raise FangcunError("There is no text to measure: all documents are empty.")
    return found


def _row(sequence: list[int], first: int, target: int, end: int) -> Row:
    return Row(sequence[first:end], sequence[target : end + 1], range(target - 1 - first, end - first))


def _hold(tokenizer: Tokenizer, texts: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str, list[int]]]]:
    """Documents with their ids, about HELD_TOKENS at a time; where the parts end depends on the text alone."""
    held: list[tuple[str, str, list[int]]] = []
    waiting: list[tuple[str, str]] = []
    size = 0

    def encode() -> None:
        for (source, text), ids in zip(waiting, tokenizer.encode_documents([t for _, t in waiting]), strict=True):
            held.append((source, text, ids))
        waiting.clear()

    for source, text in texts:
        waiting.append((source, text))
        size += len(text)
        if size >= HELD_TOKENS:  # characters: about as many tokens, never many more
            encode()
            yield held
            held, size = [], 0
    encode()
    if held:
        yield held


def _document(tokenizer: Tokenizer, text: str, ids: list[int], nats: npt.NDArray[np.float64]) -> Totals:
    size = len(text.encode("utf-8", "replace"))
    totals = Totals(documents=1, tokens=len(ids), bytes=size, nats=float(nats.sum(dtype=np.float64)))
    sizes = piece_bytes(tokenizer, text, ids)
    if sizes is None:
        totals.unfaithful = 1
        return totals
    scripts = script_of_bytes(text)
    totals.script_bits = spread(nats / math.log(2), sizes, scripts)
    totals.script_bytes = np.bincount(scripts, minlength=len(SCRIPTS)).astype(np.int64)
    return totals


def piece_bytes(tokenizer: Tokenizer, text: str, ids: list[int]) -> npt.NDArray[np.int64] | None:
    """UTF-8 bytes of the text that each id stands for; None where the ids do not give the text back."""
    pieces = tokenizer.pieces(ids)
    return None if pieces is None or b"".join(pieces) != text.encode("utf-8", "replace") else _sizes(pieces)


def _sizes(pieces: list[bytes]) -> npt.NDArray[np.int64]:
    return np.array([len(piece) for piece in pieces], np.int64)
