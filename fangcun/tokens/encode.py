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
    from fangcun.tokenizer.bulk import BulkEncoder


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


def encode_batch(tokenizer: Tokenizer, encoder: BulkEncoder, dtype: str, batch: list[Piece]) -> Encoded:
    """Encode a batch. Raises FangcunError for an id that the tokenizer's vocabulary does not have."""
    flat = encoder.encode([piece.text for piece in batch])
    ids, behind = flat.ids, np.cumsum(flat.lengths)
    if len(ids) and (highest := int(ids.max())) >= tokenizer.vocab_size:
        raise FangcunError(
            f"The tokenizer gave id {highest:,}, but its vocabulary has {tokenizer.vocab_size:,} ids: its tokenizer.json "
            "contradicts itself. Make or import it again."
        )
    checked = lossy = 0
    for place, piece in enumerate(batch):
        if piece.check:
            stop = int(behind[place])
            checked += 1
            lossy += tokenizer.decode(ids[stop - int(flat.lengths[place]) : stop].tolist()) != piece.text
    closes = np.fromiter((piece.closes for piece in batch), dtype=bool, count=len(batch))
    return Encoded(
        ids=np.insert(ids.astype(disk_dtype(dtype), copy=False), behind[closes], tokenizer.eos_id),
        lengths=flat.lengths + closes,
        n_bytes=np.fromiter((len(piece.text.encode()) for piece in batch), dtype=np.int64, count=len(batch)),
        closes=closes,
        # Counted without the ends: some tokenizers use one id for both.
        unk_tokens=0 if tokenizer.unk_id is None else int(np.count_nonzero(ids == tokenizer.unk_id)),
        checked=checked,
        lossy=lossy,
    )


_worker: tuple[Tokenizer, BulkEncoder, str] | None = None
"""What a worker process works with; set once, by `prepare_worker`."""


def prepare_worker(folder: str, dtype: str) -> None:
    """Load the tokenizer of a worker process. Its own threads are off: the processes are the parallelism."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["RAYON_NUM_THREADS"] = "1"
    from fangcun.tokenizer import Tokenizer
    from fangcun.tokenizer.bulk import library_encoder

    global _worker
    tokenizer = Tokenizer.load(Path(folder))
    _worker = (tokenizer, library_encoder(tokenizer), dtype)


def work(batch: list[Piece]) -> Encoded:
    """`encode_batch` in a worker process."""
    if _worker is None:
        raise RuntimeError("prepare_worker runs first")
    return encode_batch(*_worker, batch)
