"""Pack: a corpus artefact and a tokenizer in, a tokens artefact out.

The files depend on text, tokenizer and settings alone, never on how many processes encoded them.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fangcun.artifacts import MANIFEST, Manifest, fingerprint, read_manifest, refuse_work_of_tasks, write_artifact
from fangcun.config.schema import TokensConfig
from fangcun.errors import FangcunError
from fangcun.processes import available_cores, ordered_map, threaded_map
from fangcun.tokens.encode import Encoded, encode_batch, prepare_worker, work
from fangcun.tokens.format import KIND, SPLITS, ShardWriter, choose_dtype, explain_write_errors, tokens_manifest
from fangcun.tokens.pieces import PIECE_CHARACTERS, Piece, batch_pieces
from fangcun.tokens.work import SAVE_TOKENS, PackWork

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
    corpus: Path, tokenizer_folder: Path, out: Path, config: TokensConfig, *, progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> Manifest:  # fmt: skip
    """Encode a corpus artefact into token shards at `out`; every document ends with the end-of-document token.

    Memory is constant but for a single long document. Killed on the way, the same packing goes on from what stands in
    `NAME.work` beside `out`, and says so to `tell`. Raises FangcunError.
    """
    # Imported here: opening and reading tokens, which training does, needs neither.
    from fangcun.corpus import iter_split
    from fangcun.tokenizer import Tokenizer
    from fangcun.tokenizer.bulk import choose_encoder

    refuse_work_of_tasks(work_folder(Path(out)))
    source = read_manifest(Path(corpus), "corpus")
    tokenizer = Tokenizer.load(tokenizer_folder)
    manifest = planned_manifest(source, tokenizer, tokenizer_folder, config)
    dtype = manifest.settings["dtype"]
    total_bytes = sum(source.counts[split]["bytes"] for split in SPLITS)
    sample = (document.text for split in SPLITS for document in iter_split(Path(corpus), split))
    encoder = choose_encoder(tokenizer, sample, total_bytes, config.encoder)
    small = total_bytes < SMALL_CORPUS_BYTES and not encoder.in_threads
    workers = config.workers or (1 if small else available_cores())
    work = PackWork(work_folder(Path(out)), manifest.fingerprint)
    with explain_write_errors(Path(out)), write_artifact(Path(out), manifest) as folder, work.opened():
        if work.documents and tell is not None:
            tell(f"going on from {work.folder}: {work.documents:,} documents were packed before")
        encode = partial(
            _encode_all, tokenizer=tokenizer, encoder=encoder, folder=tokenizer_folder, dtype=dtype, workers=workers
        )
        joiners = _write_shards(
            Path(corpus), work, config.shard_tokens, dtype, tokenizer, encode, progress, total_bytes
        )
        for split, joiner in joiners.items():
            manifest.counts[split] = joiner.counts()
            if sources := source.counts[split].get("sources"):
                documents = {name: counts["documents"] for name, counts in sources.items()}
                manifest.counts[split]["sources"] = joiner.writer.count_runs(documents)
        work.hand_over(folder)
    return manifest


def planned_manifest(source: Manifest, tokenizer: Tokenizer, tokenizer_folder: Path, config: TokensConfig) -> Manifest:
    """The manifest of the tokens that `pack` makes of the corpus with the manifest `source`, but for the counts."""
    tokenizer_fp = artifact_fingerprint(tokenizer_folder, tokenizer)
    return Manifest(
        KIND,
        fingerprint=tokens_fingerprint(config, source.fingerprint, tokenizer_fp),
        settings={
            "dtype": choose_dtype(config.dtype, tokenizer.vocab_size),
            "vocab_size": tokenizer.vocab_size,
            "eos_id": tokenizer.eos_id,
            "shard_tokens": config.shard_tokens,
            "tokenizer_fingerprint": tokenizer.fingerprint,
        },
        parents={"corpus": source.fingerprint, "tokenizer": tokenizer_fp},
    )


def work_folder(out: Path) -> Path:
    """Where shards wait while they are being written."""
    return out.with_name(f"{out.name}.work")


def _write_shards(
    corpus: Path, work: PackWork, shard_tokens: int, dtype: str, tokenizer: Tokenizer,
    encode: Callable[[Iterator[list[Piece]]], Generator[Encoded, None, None]], progress: Progress | None, total_bytes: int,
) -> dict[str, DocumentJoiner]:  # fmt: skip
    from fangcun.corpus import iter_split

    reading: deque[str] = deque()
    """Splits of the batches that are being encoded."""
    done = {split: state["writer"]["documents"] for split, state in work.states.items()}

    def batches() -> Iterator[list[Piece]]:
        for split in SPLITS:
            skip = done.get(split, 0)
            texts = (document.text for document in itertools.islice(iter_split(corpus, split), skip, None))
            for batch in batch_pieces(texts, tokenizer.encode_documents, PIECE_CHARACTERS, first=skip):
                reading.append(split)
                yield batch

    with contextlib.ExitStack() as stack:
        joiners = {
            split: DocumentJoiner(
                stack.enter_context(ShardWriter(work.folder, split, dtype, shard_tokens, state.get("writer"))), state
            )
            for split in SPLITS
            for state in (work.states.get(split, {}),)
        }
        done_bytes = sum(joiner.writer.bytes for joiner in joiners.values())
        saved = sum(joiner.writer.tokens for joiner in joiners.values())
        # Closed on the way out, so that an error here ends the processes before the folder goes.
        for encoded in stack.enter_context(contextlib.closing(encode(batches()))):
            joiners[reading.popleft()].add(encoded)
            done_bytes += int(encoded.n_bytes.sum())
            if progress is not None:
                progress(done_bytes, max(total_bytes, done_bytes))
            written = sum(joiner.writer.tokens for joiner in joiners.values())
            if written - saved >= SAVE_TOKENS and all(joiner.is_whole for joiner in joiners.values()):
                work.save({split: joiner.state() for split, joiner in joiners.items()})
                saved = written
        work.save({split: joiner.state() for split, joiner in joiners.items()})
    return joiners


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

    def __init__(self, writer: ShardWriter, state: dict[str, Any] | None = None) -> None:
        """state: what another joiner's `state` gave; its writer went on from it too."""
        self.writer = writer
        self._empty, self._unk_tokens, self._checked, self._lossy = (state or {}).get("counts", (0, 0, 0, 0))
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

    @property
    def is_whole(self) -> bool:
        """Whether all that came was whole documents."""
        return not self._ids

    def state(self) -> dict[str, Any]:
        """How far it came, between two documents, as JSON values."""
        return {"writer": self.writer.state(), "counts": [self._empty, self._unk_tokens, self._checked, self._lossy]}

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
