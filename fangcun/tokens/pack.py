"""Pack: a corpus artefact and a tokenizer in, a tokens artefact out.

The files depend on text, tokenizer and settings alone, never on how many processes encoded them.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fangcun.artifacts import MANIFEST, Manifest, fingerprint, read_manifest, write_artifact
from fangcun.config.schema import TokensConfig
from fangcun.errors import FangcunError
from fangcun.processes import available_cores, ordered_map, threaded_map
from fangcun.tokens.encode import Encoded, encode_batch, prepare_worker, work
from fangcun.tokens.format import KIND, SPLITS, ShardWriter, choose_dtype, explain_write_errors, tokens_manifest
from fangcun.tokens.pieces import PIECE_CHARACTERS, Piece, batch_pieces

if TYPE_CHECKING:
    from fangcun.tokenizer import Tokenizer
    from fangcun.tokenizer.bulk import BulkEncoder
    from fangcun.tokens.remote import RemoteTokens

Progress = Callable[[int, int], None]
"""Called with (done, total), here in UTF-8 bytes of text."""

SMALL_CORPUS_BYTES = 32_000_000
"""Below this `tokenizers` works in this process (in threads of its own): starting others takes longer than they save."""

RULES_VERSION = 1
"""Raised whenever the same text and tokenizer would give other files, so that old shards are not taken for new ones."""


def tokens_fingerprint(config: TokensConfig, corpus_fingerprint: str, tokenizer_fingerprint: str) -> str:
    """Fingerprint of the tokens that `pack` makes. The number of workers and the encoder do not matter."""
    return fingerprint(
        KIND,
        RULES_VERSION,
        {"dtype": config.dtype, "shard_tokens": config.shard_tokens},
        corpus_fingerprint,
        tokenizer_fingerprint,
    )


def artifact_fingerprint(folder: Path, tokenizer: Tokenizer) -> str:
    """Fingerprint of a tokenizer folder: its manifest's, or for a folder of another program that of its content."""
    if (Path(folder) / MANIFEST).is_file():
        return read_manifest(Path(folder), "tokenizer").fingerprint
    return tokenizer.fingerprint


def check_tokenizer(tokens: Path | str | RemoteTokens, tokenizer: Tokenizer) -> None:
    """Raise FangcunError when `tokenizer` is not the one that the tokens folder was made with."""
    settings = tokens_manifest(tokens).settings
    if settings["tokenizer_fingerprint"] != tokenizer.fingerprint:
        raise FangcunError(
            f"{tokens} was made with another tokenizer: {settings['vocab_size']:,} ids, fingerprint "
            f"{settings['tokenizer_fingerprint'][:12]}; the tokenizer given has {tokenizer.vocab_size:,} ids, fingerprint "
            f"{tokenizer.fingerprint[:12]}. Name the one that made the tokens with --tokenizer.path, or pack the text again."
        )


def split_counts(
    tokens: int, documents: int, n_bytes: int, unk_tokens: int, reason: str | None = None, **more: int
) -> dict[str, Any]:
    """What the manifest says of a split. `reason`: why bits per byte is not comparable, besides <unk>."""
    if unk_tokens:
        reason = f"<unk> stands for text that the tokenizer cannot spell ({unk_tokens:,} tokens)"
    return {
        "tokens": tokens,
        "documents": documents,
        "bytes": n_bytes,
        "unk_tokens": unk_tokens,
        **more,
        "comparable": reason is None,
        "not_comparable_because": reason,
    }


def pack(
    corpus: Path, tokenizer_folder: Path, out: Path, config: TokensConfig, *, progress: Progress | None = None
) -> Manifest:
    """Encode a corpus artefact into token shards at `out`; every document ends with the end-of-document token.

    Memory is constant but for a single long document. Raises FangcunError.
    """
    # Imported here: opening and reading tokens, which training does, needs neither.
    from fangcun.corpus import iter_split
    from fangcun.tokenizer import Tokenizer
    from fangcun.tokenizer.bulk import choose_encoder

    source = read_manifest(Path(corpus), "corpus")
    tokenizer = Tokenizer.load(tokenizer_folder)
    dtype = choose_dtype(config.dtype, tokenizer.vocab_size)
    tokenizer_fp = artifact_fingerprint(tokenizer_folder, tokenizer)
    manifest = Manifest(
        KIND,
        fingerprint=tokens_fingerprint(config, source.fingerprint, tokenizer_fp),
        settings={
            "dtype": dtype,
            "vocab_size": tokenizer.vocab_size,
            "eos_id": tokenizer.eos_id,
            "shard_tokens": config.shard_tokens,
            "tokenizer_fingerprint": tokenizer.fingerprint,
        },
        parents={"corpus": source.fingerprint, "tokenizer": tokenizer_fp},
    )
    total_bytes = sum(source.counts[split]["bytes"] for split in SPLITS)
    sample = (document.text for split in SPLITS for document in iter_split(Path(corpus), split))
    encoder = choose_encoder(tokenizer, sample, total_bytes, config.encoder)
    small = total_bytes < SMALL_CORPUS_BYTES and not encoder.in_threads
    workers = config.workers or (1 if small else available_cores())
    reading: deque[str] = deque()
    """Splits of the batches that are being encoded."""

    def batches() -> Iterator[list[Piece]]:
        for split in SPLITS:
            texts = (document.text for document in iter_split(Path(corpus), split))
            for batch in batch_pieces(texts, tokenizer.encode_documents, PIECE_CHARACTERS):
                reading.append(split)
                yield batch

    done_bytes = 0
    with (
        explain_write_errors(Path(out)),
        write_artifact(Path(out), manifest) as folder,
        contextlib.ExitStack() as stack,
    ):
        joiners = {
            split: DocumentJoiner(stack.enter_context(ShardWriter(folder, split, dtype, config.shard_tokens)))
            for split in SPLITS
        }
        # Closed on the way out, so that an error here ends the processes before the folder goes.
        results = stack.enter_context(
            contextlib.closing(_encode_all(batches(), tokenizer, encoder, tokenizer_folder, dtype, workers))
        )
        for encoded in results:
            joiners[reading.popleft()].add(encoded)
            done_bytes += int(encoded.n_bytes.sum())
            if progress is not None:
                progress(done_bytes, max(total_bytes, done_bytes))
        for split, joiner in joiners.items():
            manifest.counts[split] = joiner.counts()
    return manifest


def _encode_all(
    batches: Iterator[list[Piece]], tokenizer: Tokenizer, encoder: BulkEncoder, folder: Path, dtype: str, workers: int
) -> Generator[Encoded, None, None]:
    encode = partial(encode_batch, tokenizer, encoder, dtype)
    if encoder.in_threads:
        return threaded_map(encode, batches, workers)
    if workers == 1:
        return (encode(batch) for batch in batches)
    return ordered_map(work, batches, workers, prepare_worker, (str(folder), dtype))


class DocumentJoiner:
    """Puts the pieces of a split's documents together again, hands whole documents to the writer, and counts."""

    def __init__(self, writer: ShardWriter) -> None:
        self.writer = writer
        self._empty = self._unk_tokens = self._checked = self._lossy = 0
        self._ids: list[np.ndarray] = []
        self._n_bytes = 0

    def add(self, encoded: Encoded) -> None:
        """Take the next batch."""
        self._unk_tokens += encoded.unk_tokens
        self._checked += encoded.checked
        self._lossy += encoded.lossy
        closing = np.flatnonzero(encoded.closes)
        if not len(closing):
            self._ids.append(encoded.ids)
            self._n_bytes += int(encoded.n_bytes.sum())
            return
        first_pieces = np.concatenate([[0], closing[:-1] + 1])
        behind = int(closing[-1]) + 1  # the piece after the last whole document
        lengths = np.add.reduceat(encoded.lengths[:behind], first_pieces)
        n_bytes = np.add.reduceat(encoded.n_bytes[:behind], first_pieces)
        stop = int(lengths.sum())
        ids = encoded.ids[:stop]
        if self._ids:
            lengths[0] += sum(len(part) for part in self._ids)
            n_bytes[0] += self._n_bytes
            ids = np.concatenate([*self._ids, ids])
        self._empty += int((n_bytes == 0).sum())
        self.writer.add(ids, lengths, n_bytes)
        self._ids = [encoded.ids[stop:]] if behind < len(encoded.closes) else []
        self._n_bytes = int(encoded.n_bytes[behind:].sum())

    def counts(self) -> dict[str, Any]:
        """What the manifest says of the split."""
        reason = None
        if self._lossy:
            reason = f"decoding does not give the text back ({self._lossy:,} of {self._checked:,} texts checked)"
        writer = self.writer
        return split_counts(
            writer.tokens,
            writer.documents,
            writer.bytes,
            self._unk_tokens,
            reason,
            empty_documents=self._empty,
            checked=self._checked,
            lossy=self._lossy,
        )
