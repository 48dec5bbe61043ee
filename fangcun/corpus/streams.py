"""A file's bytes in blocks, unpacked on the way, with the position on disk for the progress bar."""

from __future__ import annotations

import gzip
import importlib
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from fangcun.corpus.files import suffixes
from fangcun.errors import FangcunError

_BLOCK_BYTES = 256 * 1024
# One compressed block is unpacked at a time; a small one keeps very repetitive text from filling the memory.
_PACKED_BLOCK_BYTES = 64 * 1024


class _DamagedError(Exception):
    """What lzma and bz2 raise, under one name: these modules may be absent, and bz2 raises a bare OSError."""


class ByteStream:
    """Iterating yields the unpacked bytes of `path`. `position_bytes` is how far the file on disk has been read,
    `unpacked_bytes` how much came out. Raises FangcunError for what cannot be read or unpacked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position_bytes = 0
        self.unpacked_bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        compression = suffixes(self.path)[1]
        try:
            with open(self.path, "rb") as file:
                unpack = {"gz": self._gzip, "zst": self._zstd, "xz": self._xz, "bz2": self._bz2}
                blocks = unpack.get(compression, self._plain)(file)
                for block in blocks:
                    self.position_bytes = file.tell()
                    self.unpacked_bytes += len(block)
                    yield block
        except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError, _DamagedError) as error:
            raise FangcunError(
                f"{self.path} is damaged or cut short: it does not unpack ({error}). Fetch or pack it again."
            ) from error
        except OSError as error:
            raise FangcunError(
                f"{self.path} cannot be read: {error.strerror or error}. Check the file and its rights."
            ) from error

    @staticmethod
    def _plain(file: BinaryIO) -> Iterator[bytes]:
        while block := file.read(_BLOCK_BYTES):
            yield block

    @staticmethod
    def _gzip(file: BinaryIO) -> Iterator[bytes]:
        with gzip.GzipFile(fileobj=file) as unpacked:
            while block := unpacked.read(_BLOCK_BYTES):
                yield block

    def _xz(self, file: BinaryIO) -> Iterator[bytes]:
        lzma = self._module("lzma")
        return self._members(file, lzma.LZMADecompressor, lzma.LZMAError, b"\0")

    def _bz2(self, file: BinaryIO) -> Iterator[bytes]:
        return self._members(file, self._module("bz2").BZ2Decompressor, OSError, b"")

    def _module(self, name: str) -> Any:
        """A module that a Python built without its C library lacks."""
        try:
            return importlib.import_module(name)
        except ImportError as error:
            raise FangcunError(
                f"{self.path} needs Python's module {name}, which this Python was built without. Unpack the file, or use another Python."
            ) from error

    @staticmethod
    def _members(file: BinaryIO, new: Callable[[], Any], damage: type[Exception], padding: bytes) -> Iterator[bytes]:
        """Streams one after the other (xz -T, pbzip2, cat) are one; `padding` may stand between them (xz)."""
        member, begun, packed = new(), False, b""
        while True:
            if not packed and (not begun or member.needs_input):
                packed = file.read(_PACKED_BLOCK_BYTES)
                if not packed:
                    break
            if not begun:
                packed = packed.lstrip(padding)
                if not packed:
                    continue
            begun = True
            try:
                block = member.decompress(packed, _BLOCK_BYTES)
            except damage as error:
                raise _DamagedError(str(error)) from error
            packed = b""
            if block:
                yield block
            if member.eof:
                packed, member, begun = member.unused_data, new(), False
        if begun:
            raise EOFError("the last stream is not complete")

    @staticmethod
    def _zstd(file: BinaryIO) -> Iterator[bytes]:
        # Frames one after the other (pzstd, `cat a.zst b.zst`) are one stream. Unlike zstandard's reader this notices
        # a file that ends inside a frame.
        decompressor = zstandard.ZstdDecompressor(max_window_size=2**31)
        frame = decompressor.decompressobj()
        inside = False
        while packed := file.read(_PACKED_BLOCK_BYTES):
            while packed:
                inside = True
                if block := frame.decompress(packed):
                    yield block
                packed = b""
                if frame.eof:
                    packed, frame, inside = frame.unused_data, decompressor.decompressobj(), False
        if inside:
            raise EOFError("the last frame is not complete")
