"""Bytes of remote files, block by block: from the cache where they are there, else fetched by several threads at once.

Blocks in use are not deleted for others that are in use: samples come in random order, so what was used last is no
likelier to be used next. Where the cache is full of them, only the bytes that are wanted are fetched, not their block. A
file that has come whole is compared with its sha256.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fangcun.errors import FangcunError
from fangcun.tokens.cache import BlockCache
from fangcun.tokens.store import RemoteFolder

BLOCK_BYTES = 4 << 20
"""What is fetched at once. A multiple of the size of an id."""
GAP_BYTES = 128 << 10
"""Bytes in between that cost less than another request."""
THREADS = 16
"""Blocks under way at a time; one connection alone rarely fills a line."""
RANGE_THREADS = 32
"""Parts of blocks under way at a time: small, so that waiting for an answer is all that they cost."""


@dataclass(frozen=True)
class RemoteFile:
    """A file as its manifest describes it."""

    name: str
    size_bytes: int
    sha256: str

    @property
    def n_blocks(self) -> int:
        """Blocks of BLOCK_BYTES, the last one shorter."""
        return -(-self.size_bytes // BLOCK_BYTES)

    def limits(self, index: int) -> tuple[int, int]:
        """First byte of a block and the one after its last."""
        return index * BLOCK_BYTES, min((index + 1) * BLOCK_BYTES, self.size_bytes)


class Block(NamedTuple):
    """One block of a file."""

    file: RemoteFile
    index: int


class Span(NamedTuple):
    """Bytes start … stop - 1 of a block, and the array (of as many ids) that they belong in."""

    start: int
    stop: int
    target: np.ndarray


class BlockReader:
    """Reads the files of one folder through a cache. Safe to use from several threads.

    in_use: sha256 of the files whose blocks are not deleted for each other.
    """

    def __init__(self, folder: RemoteFolder, cache: BlockCache, in_use: frozenset[str]) -> None:
        self.folder, self.cache, self.in_use = folder, cache, in_use
        self._threads = ThreadPoolExecutor(THREADS, "token-blocks")
        self._range_threads = ThreadPoolExecutor(RANGE_THREADS, "token-ranges")
        self._proving = threading.Lock()
        self._proven: set[str] = set()
        """Files (by sha256) that this process has compared, or is comparing, as a whole."""

    def fill(self, wanted: Mapping[Block, list[Span]], dtype: np.dtype[Any]) -> None:
        """Copy all spans, bytes of `dtype`, to their targets. Raises FangcunError."""
        missing = [block for block, spans in wanted.items() if not self._copy_cached(block, spans, dtype)]
        kept, asked_bytes = set(), 0
        for block in missing:  # all before the first arrives, so that none is counted twice
            start, stop = block.file.limits(block.index)
            if self.cache.has_room(asked_bytes + stop - start, self.in_use):
                asked_bytes += stop - start
                kept.add(block)
        jobs: list[Future[None]] = []
        try:
            for block in missing:
                if block in kept:
                    jobs.append(self._threads.submit(self._fetch, block, wanted[block], dtype))
                else:
                    for run in _runs(wanted[block]):
                        jobs.append(self._range_threads.submit(self._fetch_range, block, run, dtype))
            for job in jobs:
                job.result()
        except BaseException:
            for job in jobs:
                job.cancel()
            raise

    def whole(self, file: RemoteFile) -> bytes:
        """All of a file, compared with its sha256. Raises FangcunError."""
        content = np.empty(file.size_bytes, np.uint8)
        wanted = {}
        for index in range(file.n_blocks):
            start, stop = file.limits(index)
            wanted[Block(file, index)] = [Span(0, stop - start, content[start:stop])]
        for attempt in range(2):
            self.fill(wanted, content.dtype)
            result = content.tobytes()
            if hashlib.sha256(result).hexdigest() == file.sha256:
                return result
            if attempt == 0:
                self._drop(file)
        raise self._damaged(file)

    def _copy_cached(self, block: Block, spans: list[Span], dtype: np.dtype[Any]) -> bool:
        start, stop = block.file.limits(block.index)
        limits = [(span.start, span.stop) for span in spans]
        parts = self.cache.read(block.file.sha256, block.index, stop - start, limits)
        if parts is None:
            return False
        for span, part in zip(spans, parts, strict=True):
            span.target[:] = np.frombuffer(part, dtype)
        return True

    def _fetch(self, block: Block, spans: list[Span], dtype: np.dtype[Any]) -> None:
        """A whole block, to be kept."""
        file = block.file
        content = self.folder.read(file.name, *file.limits(block.index))
        _copy(content, spans, 0, dtype)
        kept = self.cache.put(file.sha256, block.index, content, self.in_use)
        if kept and file.sha256 not in self._proven and self.cache.count(file.sha256) == file.n_blocks:
            self._prove(file)

    def _fetch_range(self, block: Block, spans: list[Span], dtype: np.dtype[Any]) -> None:
        """Only the bytes from the first of the spans to their end."""
        start, _ = block.file.limits(block.index)
        content = self.folder.read(block.file.name, start + spans[0].start, start + max(span.stop for span in spans))
        _copy(content, spans, spans[0].start, dtype)

    def _prove(self, file: RemoteFile) -> None:
        """Compare a file that is whole in the cache with its sha256; fetch it again where it differs."""
        with self._proving:
            if file.sha256 in self._proven:
                return
            digest = hashlib.sha256()
            for index in range(file.n_blocks):
                start, stop = file.limits(index)
                parts = self.cache.read(file.sha256, index, stop - start, [(0, stop - start)])
                if parts is None:
                    return  # another process has made room
                digest.update(parts[0])
            if digest.hexdigest() != file.sha256:
                self._fetch_again(file)
            self._proven.add(file.sha256)

    def _fetch_again(self, file: RemoteFile) -> None:
        self.folder.warn(
            f"{self.folder}/{file.name}: what arrived does not match its sha256, so some ids that this run has read were wrong. "
            "It is fetched again."
        )
        digest = hashlib.sha256()
        for index in range(file.n_blocks):
            content = self.folder.read(file.name, *file.limits(index))
            digest.update(content)
            self.cache.drop(file.sha256, index)
            self.cache.put(file.sha256, index, content, self.in_use)
        if digest.hexdigest() != file.sha256:
            self._drop(file)
            raise self._damaged(file)

    def _drop(self, file: RemoteFile) -> None:
        for index in range(file.n_blocks):
            self.cache.drop(file.sha256, index)

    def _damaged(self, file: RemoteFile) -> FangcunError:
        return FangcunError(
            f"{self.folder}/{file.name} does not match the sha256 in its manifest.json: the tokens there are damaged. Copy them up again "
            "(--tokens.upload with another URL)."
        )


def _runs(spans: list[Span]) -> Iterator[list[Span]]:
    """Spans by start, those together that are better asked for at once."""
    run: list[Span] = []
    end = 0
    for span in sorted(spans, key=lambda span: span.start):
        if run and span.start > end + GAP_BYTES:
            yield run
            run = []
        run.append(span)
        end = max(end, span.stop)
    yield run


def _copy(content: bytes, spans: list[Span], skipped: int, dtype: np.dtype[Any]) -> None:
    """`content`: what stands from byte `skipped` of the block on."""
    for span in spans:
        span.target[:] = np.frombuffer(content, dtype, (span.stop - span.start) // dtype.itemsize, span.start - skipped)
