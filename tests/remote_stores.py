"""Tokens at URLs for the tests: an object store in memory that fails, waits and lies when told to, and counts."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
from fsspec.implementations.memory import MemoryFileSystem

from fangcun.artifacts import Manifest, write_artifact
from fangcun.tokens import ShardWriter, choose_dtype


class TestStore(MemoryFileSystem):
    """teststore://: memory, with `behave`."""

    __test__ = False
    protocol = "teststore"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    reads: ClassVar[list[tuple[str, int | None, int | None]]] = []
    writes: ClassVar[list[str]] = []
    at_once: ClassVar[list[int]] = [0, 0]
    """Reads under way, and the most there were."""
    on_read: ClassVar[Callable[[str, bytes], bytes] | None] = None
    """Called with (path, content) before a read ends: returns what is to arrive, or raises."""
    on_write: ClassVar[Callable[[str], None] | None] = None
    delay_seconds: ClassVar[float] = 0.0
    _lock = threading.Lock()

    @classmethod
    def _strip_protocol(cls, path: Any) -> str:
        return super()._strip_protocol(str(path).removeprefix("teststore://"))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **more: Any) -> bytes:
        with self._lock:
            self.at_once[0] += 1
            self.at_once[1] = max(self.at_once)
        try:
            content = super().cat_file(path, start, end, **more)
            self.reads.append((path, start, end))
            time.sleep(self.delay_seconds)
            hook = type(self).on_read
            return hook(path, content) if hook else content
        finally:
            with self._lock:
                self.at_once[0] -= 1

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **more: Any) -> None:
        self._written(path)
        super().pipe_file(path, value, mode, **more)

    def put_file(self, lpath: str, rpath: str, callback: Any = None, mode: str = "overwrite", **more: Any) -> None:
        self._written(rpath)
        super().pipe_file(rpath, Path(lpath).read_bytes())

    def _written(self, path: str) -> None:
        if (hook := type(self).on_write) is not None:
            hook(path)
        self.writes.append(path)

    def _rm(self, path: str) -> None:
        raise AssertionError(f"{path} was to be deleted")

    rm_file = _rm


@contextlib.contextmanager
def store() -> Iterator[type[TestStore]]:
    """An empty teststore://, forgotten afterwards."""
    fsspec.register_implementation("teststore", TestStore, clobber=True)

    def clear() -> None:
        TestStore.store.clear()
        TestStore.pseudo_dirs[:] = [""]
        TestStore.reads.clear()
        TestStore.writes.clear()
        TestStore.at_once[:] = [0, 0]
        TestStore.on_read = TestStore.on_write = None
        TestStore.delay_seconds = 0.0

    clear()
    try:
        yield TestStore
    finally:
        clear()


def lay(folder: Path, url: str) -> str:
    """Copy a local folder to `url`, as any tool would."""
    files, root = fsspec.core.url_to_fs(url)
    for file in sorted(p for p in Path(folder).rglob("*") if p.is_file()):
        files.pipe_file(f"{root}/{file.relative_to(folder).as_posix()}", file.read_bytes())
    return url


def counted_tokens(
    folder: Path, lengths: list[int], *, shard_tokens: int = 1 << 20, vocab_size: int = 60_000, val: int = 0
) -> Path:
    """A tokens folder of documents of these lengths whose ids count up from 0, modulo the vocabulary."""
    dtype = choose_dtype("auto", vocab_size)
    settings = {"dtype": dtype, "vocab_size": vocab_size, "eos_id": 0, "tokenizer_fingerprint": "f"}
    manifest = Manifest("tokens", fingerprint=f"{lengths} {vocab_size}", settings=settings)
    with write_artifact(folder, manifest) as out:
        for split, sizes in (("train", lengths), ("val", [val] if val else [])):
            with ShardWriter(out, split, dtype, shard_tokens) as writer:
                for size in sizes:
                    ids = np.arange(writer.tokens, writer.tokens + size) % vocab_size
                    writer.add(ids, np.array([size]), np.array([3 * size]))
            counts = {"tokens": writer.tokens, "documents": writer.documents, "bytes": writer.bytes}
            manifest.counts[split] = {**counts, "comparable": True, "not_comparable_because": None}
    return folder
