"""Document shards on disk: JSON lines (`text`, `source`, `id`) under zstd, and the way back."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import orjson
import zstandard

from fangcun.artifacts import read_manifest
from fangcun.corpus.documents import Document
from fangcun.errors import FangcunError

SHARD_BYTES = 1_000_000_000
_LEVEL = 3


class ShardWriter:
    """Writes `NAME-00000.jsonl.zst`, and a new shard whenever one holds `shard_bytes` of UTF-8 text. Counts what it writes.

    The same documents give the same bytes: no time stamps. There is always at least one shard; `first` is
    its number. With `shard_bytes` None it is the only one.
    """

    def __init__(
        self, folder: Path, name: str, *, shard_bytes: int | None = SHARD_BYTES, level: int = _LEVEL, first: int = 0
    ) -> None:
        self.folder, self.name, self.shard_bytes, self.level, self.first = folder, name, shard_bytes, level, first
        self.documents = self.characters = self.bytes = 0
        self.paths: list[Path] = []
        self._in_shard = 0
        self._file: BinaryIO | None = None
        self._writer: zstandard.ZstdCompressionWriter | None = None

    def __enter__(self) -> ShardWriter:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def write(self, document: Document) -> int:
        """Append one document; returns the UTF-8 bytes of its text."""
        line, size_bytes = document.packed()
        if self.shard_bytes is not None and self._in_shard and self._in_shard + size_bytes > self.shard_bytes:
            self._close()
            self._open()
        assert self._writer is not None
        self._writer.write(line)
        self._in_shard += size_bytes
        self.documents += 1
        self.characters += document.characters
        self.bytes += size_bytes
        return size_bytes

    def counts(self) -> dict[str, int]:
        """Documents, characters and UTF-8 bytes written."""
        return {"documents": self.documents, "characters": self.characters, "bytes": self.bytes}

    def _open(self) -> None:
        path = self.folder / f"{self.name}-{self.first + len(self.paths):05d}.jsonl.zst"
        self.paths.append(path)
        self._file = open(path, "wb")  # noqa: SIM115
        # In a thread beside: the bytes are the same with one thread or many, not with none.
        packer = zstandard.ZstdCompressor(level=self.level, threads=1)
        self._writer = packer.stream_writer(self._file, closefd=False)
        self._in_shard = 0

    def _close(self) -> None:
        if self._writer is not None and self._file is not None:
            self._writer.close()
            self._file.close()
            self._writer = self._file = None


def read_shards(paths: list[Path]) -> Iterator[Document]:
    """Documents of shards in order, one held at a time."""
    for path in paths:
        with _damage_is_named(path):
            for line in _lines(path):
                record = orjson.loads(line)
                yield Document(record["text"], record["source"], record["id"])


def read_lines(paths: list[Path]) -> Iterator[bytes]:
    """Documents of shards in order, as lines of JSON."""
    for path in paths:
        with _damage_is_named(path):
            yield from _lines(path)


def _lines(path: Path) -> Iterator[bytes]:
    with (
        open(path, "rb") as file,
        zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as unpacked,
    ):
        yield from io.BufferedReader(unpacked, 1 << 20)


@contextlib.contextmanager
def _damage_is_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (zstandard.ZstdError, ValueError, KeyError) as error:
        raise FangcunError(
            f"{path} is damaged ({error}). Remove the folder {path.parent} to have the corpus made anew."
        ) from error


def iter_split(corpus: Path, split: str) -> Iterator[Document]:
    """The documents of a split (`train` or `val`) of a corpus folder, in order, in constant memory. Raises FangcunError."""
    if split not in ("train", "val"):
        raise FangcunError(f"There is no split '{split}' in {corpus}. Expected train or val.")
    manifest = read_manifest(Path(corpus), "corpus")
    return read_shards([Path(corpus) / name for name in sorted(manifest.files) if name.startswith(f"{split}-")])
