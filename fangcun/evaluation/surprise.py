"""How much each token of a text surprised a model: bits, rank, and what it would rather have read.

The bits are those of `measure_texts` with the same windows, so they sum to its total.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fangcun.evaluation.scoring import Row, log_probability, predict_rows
from fangcun.evaluation.text import check_stride, start_id, windows
from fangcun.generation import LanguageModel
from fangcun.model import Transformer

ALTERNATIVES = 5


@dataclass(frozen=True)
class Token:
    """One token of the text."""

    piece: bytes
    """Its bytes in the text; none for one that the tokenizer put in."""
    bits: float
    rank: int
    """1: no id was likelier."""
    alternatives: tuple[tuple[int, float], ...]
    """The likeliest ids with their probabilities, best first."""


@dataclass(frozen=True)
class Stretch:
    """Tokens that together are whole characters: a hanzi that is spread over three tokens is one of them."""

    text: str
    tokens: tuple[Token, ...]

    @property
    def bits(self) -> float:
        """Of all its tokens."""
        return sum(token.bits for token in self.tokens)


def surprise_of(
    model: LanguageModel, text: str, *, stride: int | None = None, done: Callable[[int], None] | None = None
) -> list[Token]:
    """Every token of a text, read as one document. done: called with the number of windows of each batch.

    Raises FangcunError for a stride that leaves tokens out.
    """
    ids = model.tokenizer.encode_documents([text])[0]
    block_size = model.config.block_size
    sequence = [start_id(model.tokenizer), *ids]
    rows = [
        Row(sequence[first:end], sequence[target : end + 1], range(target - 1 - first, end - first))
        for first, target, end in windows(len(ids), block_size, check_stride(stride, block_size))
    ]
    n_ids = model.tokenizer.vocab_size

    def head(transformer: Transformer, hidden: Tensor, targets: Tensor) -> Tensor:
        return _surprise(transformer, hidden, targets, n_ids)

    pieces = model.tokenizer.pieces(ids) or [model.tokenizer.decode([index]).encode() for index in ids]
    found = [values for part in predict_rows(model.model, rows, head, done=done) for values in part.tolist()]
    tokens = []
    for piece, (log_probability_, rank, *rest) in zip(pieces, found, strict=True):
        half = len(rest) // 2
        best = tuple((int(index), math.exp(value)) for index, value in zip(rest[:half], rest[half:], strict=True))
        tokens.append(Token(piece, -log_probability_ / math.log(2), int(rank), best))
    return tokens


def _surprise(model: Transformer, hidden: Tensor, targets: Tensor, n_ids: int) -> Tensor:
    """Log-probability, rank, likeliest ids, their log-probabilities: (N, 2 + 2 × ALTERNATIVES)."""
    parts = []
    for states, wanted in zip(hidden.split(128), targets.split(128), strict=True):
        logits = model.logits(states).float()
        own = log_probability(model, states, wanted)
        rank = 1 + (logits > logits.gather(1, wanted[:, None])).sum(-1, keepdim=True)
        values, ids = logits[:, :n_ids].topk(min(ALTERNATIVES, n_ids), dim=-1)
        normed = values.double() - logits.logsumexp(-1, keepdim=True).double()
        parts.append(torch.cat((own, rank.double(), ids.double(), normed), dim=1))
    return torch.cat(parts)


def stretches(tokens: list[Token]) -> list[Stretch]:
    """Tokens joined until each group is whole characters; at the end of broken text U+FFFD stands for the rest."""
    found: list[Stretch] = []
    held: list[Token] = []
    for token in tokens:
        held.append(token)
        joined = b"".join(each.piece for each in held)
        try:
            text = joined.decode()
        except UnicodeDecodeError as error:
            # A character is at most four bytes: what is not one by then never will be.
            if len(joined) - error.start < 4 and error.reason == "unexpected end of data":
                continue
            text = joined.decode(errors="replace")
        found.append(Stretch(text, tuple(held)))
        held = []
    if held:
        found.append(Stretch(b"".join(each.piece for each in held).decode(errors="replace"), tuple(held)))
    return found
