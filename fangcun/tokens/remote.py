"""Tokens behind a URL, read as if they lay here.

Blocks of the shards come into a cache on the local disk when a batch needs them. The manifest is read once, when the
folder is opened; what it says of each file (size, sha256) is what counts from then on.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from fangcun.artifacts import MANIFEST, Manifest, parse_manifest
from fangcun.errors import FangcunError
from fangcun.tokens import blocks
from fangcun.tokens.blocks import Block, BlockReader, RemoteFile, Span
from fangcun.tokens.cache import DEFAULT_CACHE_BYTES, BlockCache, default_cache_folder
from fangcun.tokens.format import KIND, NUMBER, TokenSplit
from fangcun.tokens.store import RemoteFolder, RightsError, Warn, warn_plainly

_SHA256 = re.compile(r"[0-9a-f]{64}")


class RemoteTokens:
    """A tokens folder at a URL. `open_split` and `check_tokenizer` take it in the place of a local folder."""

    def __init__(
        self,
        url: str,
        *,
        cache_folder: Path | str | None = None,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        warn: Warn = warn_plainly,
    ) -> None:
        """`url` names a tokens folder, or a run that has one.

        cache_folder: for the blocks, on a local disk; None: below the user's cache folder. Raises FangcunError where
        there are no tokens, no rights, no connection, or the cache folder cannot be used.
        """
        given = RemoteFolder(url, warn=warn)
        folder, raw = _find(given)
        self.folder = folder
        self.manifest: Manifest = parse_manifest(raw, f"{folder}/{MANIFEST}", KIND)
        self.files = {name: _described(folder, name, entry) for name, entry in self.manifest.files.items()}
        self.cache = BlockCache(
            default_cache_folder() if cache_folder is None else Path(cache_folder).expanduser(), cache_bytes
        )
        self.reader = BlockReader(folder, self.cache, frozenset(file.sha256 for file in self.files.values()))

    def __str__(self) -> str:
        return str(self.folder)

    @property
    def parent(self) -> RemoteFolder:
        """The folder that the tokens lie in; their tokenizer lies beside them."""
        return RemoteFolder(self.folder.url.rpartition("/")[0], warn=self.folder.warn)

    @property
    def size_bytes(self) -> int:
        """Bytes of all files but the manifest."""
        return sum(file.size_bytes for file in self.files.values())

    def open_split(self, split: str) -> RemoteSplit:
        """ "train" or "val". Raises FangcunError where the manifest contradicts itself."""
        try:
            return RemoteSplit(self, split)
        except (KeyError, TypeError, AttributeError) as error:
            raise FangcunError(
                f"{self}/{MANIFEST} does not describe the split {split} ({error}): it is damaged."
            ) from error

    def warnings(self) -> list[str]:
        """What is to be known of the cache before a training begins: that it is too small, or its disk."""
        found, cache, needed = [], self.cache, self.size_bytes
        if needed > cache.limit_bytes:
            again = 1 - cache.limit_bytes / needed
            found.append(
                f"{self} has {_gigabytes(needed)} of tokens, the cache holds {_gigabytes(cache.limit_bytes)} (tokens.cache_bytes). Samples come "
                f"in random order, so about {again:.0%} of them will be read from the URL each time, and training may have to wait for "
                f"them. Give --tokens.cache_bytes {needed * 101 // 100} or more, or copy the tokens to a local disk."
            )
        room = shutil.disk_usage(cache.folder).free + cache.total_bytes()
        if min(needed, cache.limit_bytes) > room:
            found.append(
                f"the disk of the cache folder {cache.folder} has room for {_gigabytes(room)}, but the cache will grow to "
                f"{_gigabytes(min(needed, cache.limit_bytes))}. Free some space, lower --tokens.cache_bytes or name another --tokens.cache_folder."
            )
        return found


class RemoteSplit(TokenSplit):
    """One split of tokens at a URL."""

    def __init__(self, tokens: RemoteTokens, split: str) -> None:
        self._tokens = tokens
        super().__init__(str(tokens), split, tokens.manifest)

    def _open_shards(self) -> list[int]:
        self._files = [self._file(stem, "bin") for stem in self._stems]
        for file in self._files:
            if file.size_bytes % self.dtype.itemsize:
                raise FangcunError(
                    f"{self.folder}/{file.name} has {file.size_bytes:,} bytes, which is no number of {self.dtype} ids."
                )
        lengths = [file.size_bytes // self.dtype.itemsize for file in self._files]
        if sum(lengths) != (said := self._tokens.manifest.counts[self.split]["tokens"]):
            raise FangcunError(
                f"{self.folder}/{MANIFEST} says {said:,} {self.split} tokens and lists files of {sum(lengths):,}: it is damaged."
            )
        return lengths

    def _file(self, stem: str, ending: str) -> RemoteFile:
        name = f"{stem}.{ending}"
        if name not in self._tokens.files:
            raise FangcunError(f"{self.folder}/{MANIFEST} lists no {name}: the tokens there are damaged.")
        return self._tokens.files[name]

    def _numbers(self, stem: str, ending: str) -> np.ndarray:
        return np.frombuffer(self._tokens.reader.whole(self._file(stem, ending)), NUMBER)

    def read_rows(self, starts: Any, out: np.ndarray) -> None:
        """As for a local folder; blocks that are not in the cache are fetched, several at a time. Raises FangcunError."""
        length, size = out.shape[1], self.dtype.itemsize
        wanted: dict[Block, list[Span]] = {}
        for row, start in zip(out, starts, strict=True):
            if not 0 <= start <= self.n_tokens - length:
                raise IndexError(f"tokens {start}:{start + length} of {self.n_tokens}")
            shard = int(np.searchsorted(self._starts, start, side="right")) - 1
            filled = 0
            while filled < length:
                file = self._files[shard]
                first = (int(start) + filled - int(self._starts[shard])) * size
                stop = min(first + (length - filled) * size, file.size_bytes)
                while first < stop:
                    index = first // blocks.BLOCK_BYTES
                    base = index * blocks.BLOCK_BYTES
                    until = min(stop, base + blocks.BLOCK_BYTES)
                    count = (until - first) // size
                    span = Span(first - base, until - base, row[filled : filled + count])
                    wanted.setdefault(Block(file, index), []).append(span)
                    filled, first = filled + count, until
                shard += 1
        self._tokens.reader.fill(wanted, self.dtype)


def _find(given: RemoteFolder) -> tuple[RemoteFolder, bytes]:
    """The tokens folder at or in `given`, and its manifest."""
    refused = None
    for folder in (given.below("tokens"), given):
        try:
            raw = folder.read_if_there(MANIFEST)
        except RightsError as error:  # said of a missing file too, to whom may not list the bucket
            refused = refused or error
            continue
        if raw is not None:
            return folder, raw
    if refused is not None:
        raise refused
    raise FangcunError(
        f"{given} holds no tokens: neither {given}/{MANIFEST} nor {given}/tokens/{MANIFEST} is there ({given.missing}). Check the "
        "URL; tokens are copied up with --tokens.upload URL."
    )


def _described(folder: RemoteFolder, name: str, entry: object) -> RemoteFile:
    """An entry of the manifest, which came from elsewhere: names and checksums become parts of local paths."""
    if isinstance(entry, dict) and re.fullmatch(r"\w[\w.-]*", name):
        size_bytes, sha256 = entry.get("size_bytes"), entry.get("sha256")
        if isinstance(size_bytes, int) and size_bytes >= 0 and isinstance(sha256, str) and _SHA256.fullmatch(sha256):
            return RemoteFile(name, size_bytes, sha256)
    raise FangcunError(
        f"{folder}/{MANIFEST}: the entry {json.dumps(name)} of files describes no file of tokens: the manifest is damaged."
    )


def _gigabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:,.1f} GB" if size_bytes >= 5e7 else f"{size_bytes / 1e6:,.1f} MB"
