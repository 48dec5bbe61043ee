"""Packing in windows of the text that know nothing of each other, and are joined afterwards.

A window is a run of documents of one corpus shard. Each is encoded into a shard of its own; joined in order they fill
the same files that `pack` writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fangcun.artifacts import Manifest
from fangcun.config.schema import TokensConfig
from fangcun.tokens.encode import encode_batch
from fangcun.tokens.format import NUMBER, SPLITS, ShardWriter, disk_dtype, map_file
from fangcun.tokens.pack import DocumentJoiner
from fangcun.tokens.pieces import PIECE_CHARACTERS, batch_pieces

if TYPE_CHECKING:
    from fangcun.corpus import Document
    from fangcun.tokenizer import Tokenizer

MAX_WINDOWS = 32
"""Of one shard: the text before a window is read and passed over."""

_ABOUT = "part.json"
_WHOLE = 1 << 62
_JOIN_DOCUMENTS = 1 << 16


@dataclass(frozen=True)
class Window:
    """The documents of a shard before which it holds from `start_bytes` to less than `stop_bytes` of text."""

    split: str
    shard: str
    """File name."""
    start_bytes: int
    stop_bytes: int | None
    """None: to the end."""
    size_bytes: int
    """Of its text, about."""


def cut_windows(source: Manifest, target_bytes: int) -> list[Window]:
    """Windows of about `target_bytes` over all shards of a corpus, in order. They depend on its manifest alone."""
    windows = []
    for split in SPLITS:
        names = sorted(name for name in source.files if name.startswith(f"{split}-"))
        packed_bytes = sum(source.files[name]["size_bytes"] for name in names)
        for name in names:
            # How much text a shard holds is not written down; shards of one split are packed about as tightly.
            share = source.files[name]["size_bytes"] / max(1, packed_bytes)
            size = round(source.counts[split]["bytes"] * share)
            count = max(1, min(MAX_WINDOWS, round(size / target_bytes)))
            bounds = [size * number // count for number in range(count + 1)]
            for start, stop in zip(bounds[:-1], [*bounds[1:-1], None], strict=True):
                windows.append(Window(split, name, start, stop, (size if stop is None else stop) - start))
    return windows


def read_window(corpus: Path, window: Window) -> Iterator[Document]:
    """The documents of a window, in order."""
    from fangcun.corpus.shards import read_shards

    before_bytes = 0
    for document in read_shards([corpus / window.shard]):
        if window.stop_bytes is not None and before_bytes >= window.stop_bytes:
            return
        if before_bytes >= window.start_bytes:
            yield document
        before_bytes += len(document.text.encode())


def encode_window(
    corpus: Path, window: Window, tokenizer: Tokenizer, config: TokensConfig, dtype: str, folder: Path, *, first: int
) -> None:
    """Encode a window into `folder`, which is new. `first` is the number of its first document in the split."""
    from fangcun.tokenizer.bulk import choose_encoder

    sample = (document.text for document in read_window(corpus, window))
    encoder = choose_encoder(tokenizer, sample, window.size_bytes, config.encoder)
    texts = (document.text for document in read_window(corpus, window))
    with ShardWriter(folder, window.split, dtype, _WHOLE) as writer:
        joiner = DocumentJoiner(writer)
        for batch in batch_pieces(texts, tokenizer.encode_documents, PIECE_CHARACTERS, first=first):
            joiner.add(encode_batch(tokenizer, encoder, dtype, batch))
    state = joiner.state()
    about = {"documents": writer.documents, "tokens": writer.tokens, "counts": state["counts"]}
    (folder / _ABOUT).write_text(json.dumps(about), encoding="utf-8")


def join_windows(
    windows: Sequence[Window], folders: Sequence[Path], folder: Path, config: TokensConfig, dtype: str, source: Manifest
) -> dict[str, Any]:
    """Write the shards of all windows, encoded into `folders`, into `folder`; what the manifest says of each split."""
    counts: dict[str, Any] = {}
    with ExitStack() as stack:
        for split in SPLITS:
            writer = stack.enter_context(ShardWriter(folder, split, dtype, config.shard_tokens))
            sums = np.zeros(4, np.int64)
            for window, part in zip(windows, folders, strict=True):
                if window.split == split:
                    sums += json.loads((part / _ABOUT).read_text(encoding="utf-8"))["counts"]
                    _append(writer, part / f"{split}-00000", dtype)
            counts[split] = DocumentJoiner(writer, {"counts": sums.tolist()}).counts()
            if sources := source.counts[split].get("sources"):
                documents = {name: each["documents"] for name, each in sources.items()}
                counts[split]["sources"] = writer.count_runs(documents)
    return counts


def _append(writer: ShardWriter, stem: Path, dtype: str) -> None:
    ids = map_file(stem.with_name(f"{stem.name}.bin"), disk_dtype(dtype))
    ends = np.fromfile(f"{stem}.idx", NUMBER).astype(np.int64)
    n_bytes = np.fromfile(f"{stem}.bytes", NUMBER).astype(np.int64)
    done = 0
    for start in range(0, len(ends), _JOIN_DOCUMENTS):
        some = ends[start : start + _JOIN_DOCUMENTS]
        lengths = np.diff(some, prepend=done)
        writer.add(ids[done : int(some[-1])], lengths, n_bytes[start : start + _JOIN_DOCUMENTS])
        done = int(some[-1])
