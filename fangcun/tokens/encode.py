"""From a batch of pieces of text to arrays of ids: the work that is done in parallel."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fangcun.errors import FangcunError
from fangcun.tokens.format import disk_dtype
from fangcun.tokens.pieces import Piece

if TYPE_CHECKING:
    from fangcun.tokenizer import Tokenizer


@dataclass(slots=True)
class Encoded:
    """Ids of a batch and what is known of them."""

    ids: np.ndarray
    """Ids of all pieces end to end, an end-of-document id behind each that closes one; type of the shards."""
    lengths: np.ndarray
    """Ids of each piece, int64."""
    n_bytes: np.ndarray
    """UTF-8 bytes of each piece, int64."""
    closes: np.ndarray
    """Whether a document ends with the piece, bool."""
    unk_tokens: int
    checked: int
    """Pieces that were decoded and compared."""
    lossy: int
    """Those of them which did not come back."""


def encode_batch(tokenizer: Tokenizer, dtype: str, batch: list[Piece]) -> Encoded:
    """Encode a batch. Raises FangcunError for an id that the tokenizer's vocabulary does not have."""
    lists = tokenizer.encode_documents([piece.text for piece in batch])
    checks = [(piece.text, ids) for piece, ids in zip(batch, lists, strict=True) if piece.check]
    lossy = sum(tokenizer.decode(ids) != text for text, ids in checks)
    parts, end, nothing = [], np.array([tokenizer.eos_id]), np.empty(0, np.int64)
    for piece, ids in zip(batch, lists, strict=True):
        parts += [np.array(ids, dtype=np.int64), end if piece.closes else nothing]
    flat = np.concatenate(parts)
    if len(flat) and (highest := int(flat.max())) >= tokenizer.vocab_size:
        raise FangcunError(
            f"The tokenizer gave id {highest:,}, but its vocabulary has {tokenizer.vocab_size:,} ids: its tokenizer.json "
            "contradicts itself. Make or import it again."
        )
    n_ends = sum(piece.closes for piece in batch)
    # Counted without the ends: some tokenizers use one id for both.
    unk_tokens = 0 if tokenizer.unk_id is None else int((flat == tokenizer.unk_id).sum())
    if tokenizer.unk_id == tokenizer.eos_id:
        unk_tokens -= n_ends
    return Encoded(
        ids=flat.astype(disk_dtype(dtype)),
        lengths=np.array([len(ids) + piece.closes for piece, ids in zip(batch, lists, strict=True)], dtype=np.int64),
        n_bytes=np.array([len(piece.text.encode()) for piece in batch], dtype=np.int64),
        closes=np.array([piece.closes for piece in batch], dtype=bool),
        unk_tokens=unk_tokens,
        checked=len(checks),
        lossy=lossy,
    )


_worker: tuple[Tokenizer, str] | None = None
"""What a worker process works with; set once, by `prepare_worker`."""


def prepare_worker(folder: str, dtype: str) -> None:
    """Load the tokenizer of a worker process. Its own threads are off: the processes are the parallelism."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["RAYON_NUM_THREADS"] = "1"
    from fangcun.tokenizer import Tokenizer

    global _worker
    _worker = (Tokenizer.load(Path(folder)), dtype)


def work(batch: list[Piece]) -> Encoded:
    """`encode_batch` in a worker process."""
    if _worker is None:
        raise RuntimeError("prepare_worker runs first")
    return encode_batch(*_worker, batch)
