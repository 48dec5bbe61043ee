"""Token shards on disk: how they are written and read.

A split (`train`, `val`) is a series of shards, numbered from 0. A shard is three files of plain little-endian
numbers without headers, so that any tool can open them:

| file              | type             | content                                                               |
|-------------------|------------------|-----------------------------------------------------------------------|
| `train-00000.bin`   | uint16 or uint32 | token ids, one after the other (nanoGPT's layout)                     |
| `train-00000.idx`   | uint64           | for each document that ends in this shard: position after its last token, counted in tokens from the start of this shard |
| `train-00000.bytes` | uint64           | for each of those documents: UTF-8 bytes of its text                  |

    ids = np.fromfile("train-00000.bin", dtype="<u2")      # or "<u4": settings.dtype of manifest.json
    ends = np.fromfile("train-00000.idx", dtype="<u8")
    first_document = ids[: ends[0]]                        # its last id is the end-of-document token

Shards hold whole documents; only a document longer than a shard is cut, and it is listed where it ends. A split
without text has one shard of empty files. `manifest.json` says dtype, vocab_size, eos_id, and for each split tokens,
documents and bytes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np

from fangcun.artifacts import Manifest, read_manifest
from fangcun.errors import ConfigError, FangcunError
from fangcun.urls import is_url

if TYPE_CHECKING:
    from fangcun.tokens.remote import RemoteTokens

KIND = "tokens"
SPLITS = ("train", "val")
NUMBER = np.dtype("<u8")
"""Type of document ends and byte counts on disk."""
_COUNTED = ("tokens", "documents", "bytes")
_DTYPES = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}

DtypeName = Literal["auto", "uint16", "uint32"]
SplitName = Literal["train", "val"]


def disk_dtype(name: str) -> np.dtype[Any]:
    """The little-endian numpy type for "uint16" or "uint32"."""
    if name not in _DTYPES:
        raise FangcunError(f"tokens.dtype is '{name}', expected one of auto, {', '.join(_DTYPES)}.")
    return _DTYPES[name]


def choose_dtype(name: str, vocab_size: int) -> str:
    """ "uint16" or "uint32": the type asked for, or for "auto" the smallest that holds ids 0 … vocab_size - 1.

    Raises ConfigError when the type asked for is too small.
    """
    if name == "auto":
        return "uint16" if vocab_size <= 1 << 16 else "uint32"
    n_ids = 1 << (8 * disk_dtype(name).itemsize)
    if vocab_size > n_ids:
        raise ConfigError(
            f"tokens.dtype: {name} holds {n_ids:,} different ids, but the tokenizer has {vocab_size:,}. "
            "Use tokens.dtype: uint32 (or auto), or a smaller vocabulary."
        )
    return name


@contextlib.contextmanager
def explain_write_errors(out: Path) -> Iterator[None]:
    """Turn a full disk or missing rights, while `out` is written, into FangcunError. Other errors pass."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
        if not full and error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        remedy = "Free some space" if full else "Check its rights"
        raise FangcunError(
            f"{error.filename or out}: {error.strerror}. {remedy}, or choose another folder with --out."
        ) from error


class ShardWriter:
    """Writes the documents of one split into `folder`, in order, with a new shard whenever one is full.

    A context manager. Counts what it wrote in `tokens`, `documents`, `bytes`. With a `state` that another writer gave, it
    goes on from there.
    """

    def __init__(
        self, folder: Path, split: str, dtype: str, shard_tokens: int, state: dict[str, Any] | None = None
    ) -> None:
        if shard_tokens < 1:
            raise ConfigError(f"tokens.shard_tokens is {shard_tokens}, expected at least 1.")
        self.tokens = self.documents = self.bytes = 0
        self._state = state
        self._folder, self._split, self._shard_tokens = Path(folder), split, shard_tokens
        self._dtype = disk_dtype(dtype)
        self._shard = -1
        self._filled = 0
        """Tokens in the shard that is open."""
        self._files: tuple[BinaryIO, ...] = ()

    def __enter__(self) -> ShardWriter:
        if self._state is None:
            self._roll()
        else:
            self._go_on(self._state)
        return self

    def state(self) -> dict[str, Any]:
        """How far the files go, on the disk, and what was counted, as JSON values."""
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
        return {
            "shard": self._shard,
            "filled": self._filled,
            "sizes": [file.tell() for file in self._files],
            **{name: getattr(self, name) for name in _COUNTED},
        }

    def _go_on(self, state: dict[str, Any]) -> None:
        for name in _COUNTED:
            setattr(self, name, state[name])
        self._shard, self._filled = state["shard"], state["filled"]
        for path in self._folder.glob(f"{self._split}-*.*"):
            if int(path.stem.rpartition("-")[2]) > self._shard:
                path.unlink()
        self._files = tuple(open(path, "r+b") for path in self._paths())  # noqa: SIM115 (closed by _close)
        for file, size in zip(self._files, state["sizes"], strict=True):
            file.truncate(size)
            file.seek(size)

    def _paths(self) -> list[Path]:
        return [self._folder / f"{self._split}-{self._shard:05d}.{ending}" for ending in ("bin", "idx", "bytes")]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        for file in self._files:
            file.close()
        self._files = ()

    def _roll(self) -> None:
        self._close()
        self._shard += 1
        self._filled = 0
        self._files = tuple(open(path, "wb") for path in self._paths())  # noqa: SIM115 (closed by _close)

    def _write_ids(self, ids: np.ndarray) -> None:
        self._files[0].write(ids.tobytes())
        self._filled += len(ids)
        self.tokens += len(ids)

    def _write_ends(self, ends: np.ndarray, n_bytes: np.ndarray) -> None:
        self._files[1].write(ends.astype(NUMBER).tobytes())
        self._files[2].write(n_bytes.astype(NUMBER).tobytes())
        self.documents += len(ends)
        self.bytes += int(n_bytes.sum())

    def count_runs(self, documents: dict[str, int]) -> dict[str, dict[str, int]]:
        """What was written, of runs of documents that follow each other: name to documents, tokens and bytes.

        `documents` says how many each run has; together they are all.
        """
        for file in self._files:
            file.flush()
        shards = range(self._shard + 1)
        sizes, base = [], 0
        for shard in shards:
            stem = self._folder / f"{self._split}-{shard:05d}"
            ends = np.fromfile(f"{stem}.idx", NUMBER).astype(np.int64)
            n_bytes = np.fromfile(f"{stem}.bytes", NUMBER).astype(np.int64)
            sizes.append(np.stack([ends + base, n_bytes]))
            base += Path(f"{stem}.bin").stat().st_size // self._dtype.itemsize
        ends, n_bytes = np.concatenate(sizes, axis=1)
        bounds = np.cumsum([0, *documents.values()])
        assert bounds[-1] == len(ends) == self.documents, (bounds, len(ends), self.documents)
        token_bounds, byte_bounds = (np.concatenate([[0], values])[bounds] for values in (ends, np.cumsum(n_bytes)))
        return {
            name: {"documents": count, "tokens": int(tokens), "bytes": int(size)}
            for (name, count), tokens, size in zip(
                documents.items(), np.diff(token_bounds), np.diff(byte_bounds), strict=True
            )
        }

    def add(self, ids: np.ndarray, lengths: np.ndarray, n_bytes: np.ndarray) -> None:
        """Append documents: their ids laid end to end, tokens of each (at least 1), UTF-8 bytes of the text of each."""
        ids = np.asarray(ids).astype(self._dtype, copy=False)
        ends = np.cumsum(np.asarray(lengths, dtype=np.int64))
        n_bytes = np.asarray(n_bytes, dtype=np.int64)
        at, done = 0, 0  # ids and documents written so far
        while done < len(ends):
            fits = int(np.searchsorted(ends, at + self._shard_tokens - self._filled, side="right"))
            if fits > done:
                base = self._filled - at
                stop = int(ends[fits - 1])
                self._write_ids(ids[at:stop])
                self._write_ends(ends[done:fits] + base, n_bytes[done:fits])
                at, done = stop, fits
            elif self._filled:
                self._roll()
            else:  # a document longer than a whole shard
                while int(ends[done]) - at > self._shard_tokens:
                    self._write_ids(ids[at : at + self._shard_tokens])
                    at += self._shard_tokens
                    self._roll()
                # The rest of it fits now: the next turn of the outer loop writes it and its end.


class TokenSplit:
    """One split of a tokens folder: a stream of `n_tokens` ids over all its shards, mapped, not loaded."""

    def __init__(self, folder: Path | str, split: str, manifest: Manifest) -> None:
        self.folder = folder if is_url(folder) else Path(folder)
        self.split = split
        settings, counts = manifest.settings, manifest.counts[split]
        self.dtype: np.dtype[Any] = disk_dtype(settings["dtype"])
        self.vocab_size: int = settings["vocab_size"]
        self.eos_id: int = settings["eos_id"]
        self.tokenizer_fingerprint: str = settings["tokenizer_fingerprint"]
        self.n_documents: int = counts["documents"]
        self.total_bytes: int = counts["bytes"]
        self.comparable: bool = counts["comparable"]
        """Whether bits per byte of this split may be compared with other tokenizers'."""
        self.not_comparable_because: str | None = counts["not_comparable_because"]
        self.sources: dict[str, tuple[int, int]] = {}
        """Named sources, each with where it begins and ends in the stream; none for a corpus without names."""
        start = 0
        for name, count in counts.get("sources", {}).items():
            self.sources[name] = (start, start + count["tokens"])
            start += count["tokens"]
        pattern = re.compile(rf"{split}-\d{{5,}}\.bin")
        names = sorted((n for n in manifest.files if pattern.fullmatch(n)), key=lambda n: (len(n), n))
        self._stems = [name.removesuffix(".bin") for name in names]
        lengths = self._open_shards()
        self._starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self.n_tokens = int(self._starts[-1])
        if self.n_tokens != counts["tokens"]:
            raise FangcunError(
                f"{self.folder} holds {self.n_tokens:,} {split} tokens, its manifest says {counts['tokens']:,}: the "
                f"tokens are damaged. Remove {self.folder} to have them made anew."
            )

    def __len__(self) -> int:
        return self.n_tokens

    def _open_shards(self) -> list[int]:
        """Make the shards of `_stems` ready to be read; tokens of each."""
        self._shards = [map_file(Path(self.folder) / f"{stem}.bin", self.dtype) for stem in self._stems]
        return [len(shard) for shard in self._shards]

    def _numbers(self, stem: str, ending: str) -> np.ndarray:
        """The content of a shard's file of document ends or of bytes."""
        return np.fromfile(Path(self.folder) / f"{stem}.{ending}", NUMBER)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Ids of positions start … stop - 1, int64, (stop - start,)."""
        if not 0 <= start <= stop <= self.n_tokens:
            raise IndexError(f"tokens {start}:{stop} of {self.n_tokens}")
        out = np.empty((1, stop - start), dtype=np.int64)
        self.read_rows([start], out)
        return out[0]

    def read_rows(self, starts: Any, out: np.ndarray) -> None:
        """Fill row i of `out` (rows, length) with the ids from position starts[i] on. No row may pass the end."""
        length = out.shape[1]
        single = self._shards[0] if len(self._shards) == 1 else None
        for row, start in zip(out, starts, strict=True):
            if single is not None:
                row[:] = single[start : start + length]
                continue
            shard = int(np.searchsorted(self._starts, start, side="right")) - 1
            filled = 0
            while filled < length:
                ids = self._shards[shard]
                inside = int(start) + filled - int(self._starts[shard])
                part = ids[inside : inside + length - filled]
                row[filled : filled + len(part)] = part
                filled += len(part)
                shard += 1

    @cached_property
    def document_ends(self) -> np.ndarray:
        """Position after the last token of each document in the stream, int64, (n_documents,)."""
        parts = [self._numbers(stem, "idx").astype(np.int64) for stem in self._stems]
        return np.concatenate([part + start for part, start in zip(parts, self._starts, strict=False)])

    @cached_property
    def document_bytes(self) -> np.ndarray:
        """UTF-8 bytes of the text of each document, int64, (n_documents,)."""
        return np.concatenate([self._numbers(stem, "bytes").astype(np.int64) for stem in self._stems])


def map_file(path: Path, dtype: np.dtype[Any]) -> np.ndarray:
    """A file as a read-only array without reading it. Empty files cannot be mapped."""
    if path.stat().st_size == 0:
        return np.empty(0, dtype)
    # As a plain array: slices of np.memmap cost several times as much.
    return np.asarray(np.memmap(path, dtype=dtype, mode="r"))


def tokens_manifest(tokens: Path | str | RemoteTokens) -> Manifest:
    """The manifest of a tokens folder, here or at a URL. Raises FangcunError where it is no whole tokens folder."""
    if isinstance(tokens, (str, Path)) and not is_url(tokens):
        return read_manifest(Path(tokens), KIND)
    return _open_remote(tokens).manifest


def open_split(tokens: Path | str | RemoteTokens, split: str) -> TokenSplit:
    """Open "train" or "val" of a tokens folder: a path, a URL, or `RemoteTokens`, which says where a URL is cached.

    Raises FangcunError where it is no whole tokens folder.
    """
    if split not in SPLITS:
        raise FangcunError(f"A tokens folder has no split '{split}', expected one of {', '.join(SPLITS)}.")
    if isinstance(tokens, (str, Path)) and not is_url(tokens):
        return TokenSplit(Path(tokens), split, read_manifest(Path(tokens), KIND))
    return _open_remote(tokens).open_split(split)


def _open_remote(tokens: Any) -> RemoteTokens:
    from fangcun.tokens.remote import RemoteTokens

    return tokens if isinstance(tokens, RemoteTokens) else RemoteTokens(tokens)
