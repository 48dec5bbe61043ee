"""The first pass of a corpus on disk: clean documents in parts, and what is needed to compare them with each other.

A part is whole or not there: `state.json`, replaced when a part ends, says how far all files go. A killed process goes
on from there: what lies behind is cut off, what was read before is passed over.

| file                  | content                                                             |
|-----------------------|---------------------------------------------------------------------|
| `part-00000.jsonl.zst`  | the documents that stay, as in the shards                           |
| `places-00000.zst`      | their places, a NUL behind each                                     |
| `numbers.bin`           | of each of them id, characters, bytes and source (`NUMBERS`)          |
| `sketches/`, `paragraphs/` | what copies and repeated paragraphs are found by                 |
| `state.json`            | counts, samples of what was left out, and how far the files go      |
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import zstandard

from fangcun.artifacts import discard, sync_file, write_text_atomic
from fangcun.corpus.dedup import Duplicates, Folding, ParagraphCounter
from fangcun.corpus.documents import Document, PackedDocument, packed_line
from fangcun.corpus.drops import Drops
from fangcun.corpus.files import STATE_FILE
from fangcun.corpus.process import Batch, Skip, Worker, account
from fangcun.corpus.report import ReadReport
from fangcun.corpus.shards import ShardWriter, read_lines, read_shards
from fangcun.corpus.sources import Source
from fangcun.errors import FangcunError

PART_CHARACTERS = 100_000_000
"""Read, before a part ends."""

NUMBERS = np.dtype([("id", "<u8"), ("characters", "<u8"), ("bytes", "<u8"), ("source", "<u2")])

_FORMAT = 1
_LEVEL = 1
_AGAIN = 4096


class Work:
    """A folder in which the first pass is made, or gone on with; a context manager.

    Raises OSError where it cannot be written. `documents` stay so far, `read` were read.
    """

    def __init__(self, folder: Path, fingerprint: str, sources: Sequence[Source]) -> None:
        self.folder, self.fingerprint, self.rules = Path(folder), fingerprint, sources[0].rules
        state = read_state(self.folder, self.fingerprint)
        if not state:
            discard(self.folder)
            self.folder.mkdir(parents=True)
        self.read: int = state.get("read", 0)
        self.documents: int = state.get("documents", 0)
        self.parts: int = state.get("parts", 0)
        self.drops = Drops.restored(state["drops"]) if state else Drops()
        self._empty: list[int] = state.get("empty", [])
        self.report: ReadReport | None = ReadReport.restored(state["done"]) if state.get("done") else None
        """Of the whole pass, when it is done."""
        self._characters = 0
        self._writer: ShardWriter | None = None
        self._places: list[bytes] = []
        self._fresh: list[tuple[int, int, int, int]] = []
        self._numbers = self._open_numbers()
        dedup = self.rules.dedup
        self.duplicates = (
            Duplicates(
                self.folder / "sketches",
                threshold=dedup.similarity,
                folding=Folding(traditional=True).fingerprint,
            )
            if self.rules.finds_copies
            else None
        )
        self.paragraphs = (
            ParagraphCounter(
                self.folder / "paragraphs",
                Folding(traditional=True),
                min_characters=dedup.paragraph_characters,
                min_documents=dedup.paragraph_documents,
                positions=state.get("paragraphs"),
            )
            if dedup.paragraph_documents is not None
            else None
        )
        if self.duplicates is not None and self.documents:
            self._sketch_again(sources)

    def __enter__(self) -> Work:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in (self._numbers, self.duplicates, self.paragraphs):
            if file is not None:
                file.close()
        if self._writer is not None:
            self._writer.__exit__(kind, error, trace)
        small = self.parts < 2 and isinstance(error, FangcunError)
        if small or not (self.parts or self.report):  # nothing worth going on from
            discard(self.folder)

    @property
    def skip(self) -> Skip | None:
        """What a run that goes on passes over."""
        return Skip(self.read, frozenset(self._empty)) if self.read else None

    def add(self, batch: Batch) -> None:
        """The next documents."""
        account(batch, self.drops)
        self._empty += [self.read + n for n, outcome in enumerate(batch.outcomes) if not outcome.text]
        self.read += len(batch.outcomes)
        if self._writer is None:
            self._writer = ShardWriter(
                self.folder, "part", first=self.parts, shard_bytes=None, level=_LEVEL
            ).__enter__()
        ids = []
        for place, outcome in batch.kept():
            characters, size_bytes = len(outcome.text), outcome.size_bytes
            line = packed_line(outcome.text, place, outcome.id)
            self._writer.write(PackedDocument(line, outcome.id, characters, size_bytes))
            ids.append(outcome.id)
            self._places.append(place.encode())
            self._fresh.append((int(outcome.id, 16), characters, size_bytes, batch.source))
        self.documents += len(ids)
        if self.duplicates is not None and batch.sketches is not None:
            self.duplicates.add(batch.sketches, ids)
        if self.paragraphs is not None and batch.paragraphs is not None:
            self.paragraphs.add(batch.paragraphs, ids)
        self._characters += sum(len(outcome.text) for outcome in batch.outcomes)
        if self._characters >= PART_CHARACTERS:
            self._end_part()

    def finish(self, report: ReadReport) -> None:
        """All documents were added."""
        if self.duplicates is not None:
            self.duplicates.flush()
        self._end_part(report)
        self.report = report

    def numbers(self) -> np.ndarray:
        """`NUMBERS` of all documents."""
        return np.fromfile(self.folder / "numbers.bin", NUMBERS)

    def stored(self) -> Iterator[Document]:
        """All documents, in order."""
        return stored(self.folder, self.parts)

    def places(self) -> Iterator[str]:
        """The place of each document, in order."""
        return places(self.folder, self.parts)

    def _open_numbers(self) -> BinaryIO:
        path, size = self.folder / "numbers.bin", self.documents * NUMBERS.itemsize
        file = open(path, "r+b" if size else "w+b")  # noqa: SIM115
        file.truncate(size)
        file.seek(size)
        return file

    def _sketch_again(self, sources: Sequence[Source]) -> None:
        """Sketches are kept in blocks: those of the block that was begun when the last part ended are made again."""
        assert self.duplicates is not None
        kept = self.duplicates.keep(self.documents)
        worker, texts, ids = Worker([source.rules for source in sources]), [], []
        part, first = self._part_of(kept)
        paths = [self.folder / f"part-{number:05d}.jsonl.zst" for number in range(part, self.parts)]
        for number, document in enumerate(read_shards(paths), first):
            if number >= kept:
                texts.append(document.text)
                ids.append(document.id)
        for at in range(0, len(texts), _AGAIN):
            sketches, _ = worker.compare(texts[at : at + _AGAIN])
            assert sketches is not None
            self.duplicates.add(sketches, ids[at : at + _AGAIN])

    def _part_of(self, document: int) -> tuple[int, int]:
        """The part in which a document lies, and the number of the first document of that part."""
        first = 0
        for part in range(self.parts):
            count = len(_part_places(self.folder, part))
            if document < first + count:
                return part, first
            first += count
        return self.parts, first

    def _end_part(self, report: ReadReport | None = None) -> None:
        if self._writer is not None:
            self._writer.__exit__(None, None, None)
            sync_file(self._writer.paths[-1])
            self._writer = None
            places = b"".join(place + b"\0" for place in self._places)
            path = self.folder / f"places-{self.parts:05d}.zst"
            path.write_bytes(zstandard.ZstdCompressor(level=_LEVEL).compress(places))
            sync_file(path)
            self.parts += 1
        self._numbers.write(np.array(self._fresh, NUMBERS).tobytes())
        self._numbers.flush()
        self._fresh, self._places, self._characters = [], [], 0
        state = {
            "format": _FORMAT,
            "fingerprint": self.fingerprint,
            "read": self.read,
            "documents": self.documents,
            "parts": self.parts,
            "empty": self._empty,
            "drops": self.drops.state(),
            "paragraphs": self.paragraphs.flush() if self.paragraphs is not None else None,
            "done": None if report is None else report.state(),
        }
        write_text_atomic(self.folder / STATE_FILE, json.dumps(state, ensure_ascii=False))


def read_state(folder: Path, fingerprint: str) -> dict[str, Any]:
    """The state of a first pass for the same corpus, if one lies there, or an empty one."""
    try:
        state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    known = state.get("format") == _FORMAT and state.get("fingerprint") == fingerprint
    return state if known else {}


def stored(folder: Path, parts: int) -> Iterator[Document]:
    """The documents of a first pass in `folder`, in order."""
    lines = read_lines([folder / f"part-{part:05d}.jsonl.zst" for part in range(parts)])
    with open(folder / "numbers.bin", "rb") as file:
        while len(some := np.fromfile(file, NUMBERS, _AGAIN)):
            columns = (some[name].tolist() for name in ("id", "characters", "bytes"))
            for line, identity, characters, size_bytes in zip(
                itertools.islice(lines, len(some)), *columns, strict=True
            ):
                yield PackedDocument(line, f"{identity:016x}", characters, size_bytes)


def places(folder: Path, parts: int) -> Iterator[str]:
    """The place of each of them."""
    for part in range(parts):
        for place in _part_places(folder, part):
            yield place.decode()


def _part_places(folder: Path, part: int) -> list[bytes]:
    packed = (folder / f"places-{part:05d}.zst").read_bytes()
    return zstandard.ZstdDecompressor().decompress(packed).split(b"\0")[:-1]
