"""Files to documents in constant memory: the one path every text takes, whatever its format."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fangcun.config.schema import CorpusConfig
from fangcun.corpus.documents import split_lines, split_text
from fangcun.corpus.encoding import StreamDecoder
from fangcun.corpus.files import suffixes
from fangcun.corpus.json_stream import MAX_RECORD_CHARACTERS, parse_json, stream_json
from fangcun.corpus.report import FileReport, ReadReport
from fangcun.corpus.schemas import NoTextError, texts
from fangcun.corpus.sources import Source
from fangcun.corpus.streams import ByteStream
from fangcun.corpus.tables import read_arrow, read_csv, read_parquet
from fangcun.corpus.wiki import START, split_wiki
from fangcun.errors import FangcunError, did_you_mean

Progress = Callable[[int, int], None]
"""Called with the bytes of the input files read so far, and their total."""

Texts = Callable[[Any, str | None], Iterator[str | NoTextError]]
"""Called with a record and corpus.text_key."""

_PROGRESS_BYTES = 1 << 20
# Records without the field the user named before reading stops: fewer than this at the start may be odd ones.
_PATIENCE_RECORDS = 100
# A file this far in that is mostly not text is given up at once, and not at its end.
_HOPELESS_BYTES = 8 << 20
_HOPELESS_SHARE = 0.5


@dataclass(slots=True)
class RawDocument:
    """A text as it stands in its file."""

    place: str
    """`file`, `file:line` or `file:line/record`."""
    text: str
    counts: FileReport
    """Of its file, for whoever cleans it."""


def read_raw(
    source: Source, report: ReadReport, *, progress: Progress | None = None, texts: Texts = texts
) -> Iterator[RawDocument]:
    """Yield the documents of a source as they stand in its files, in the order of these.

    `report` is filled on the way, but for what becomes of the documents. `texts` finds the texts of a record. Memory
    does not grow with the corpus (a single document is held whole). Raises FangcunError: unreadable files.
    """
    report.skipped += [source.names[path] for path in source.skipped]
    done_bytes, shown_bytes = 0, 0
    for path in source.files:
        reader = _FileReader(path, source.names[path], source.config, report, texts)
        for document in reader.documents():
            yield document
            now = done_bytes + reader.position_bytes()
            if progress and now - shown_bytes >= _PROGRESS_BYTES:
                progress(now, source.size_bytes)
                shown_bytes = now
        done_bytes += source.sizes[path]
    if progress:
        progress(source.size_bytes, source.size_bytes)


def check_read(config: CorpusConfig, report: ReadReport) -> None:
    """Raise FangcunError when more is broken than `max_broken_share`, or nothing was found in any file."""
    report.check(config.max_broken_share)
    if not report.total("documents"):
        found = f" Broken: {report.first_places()}." if report.samples else ""
        names = [file.name for file in report.files]
        raise FangcunError(
            f"The corpus is empty: {len(names)} file{'s' if len(names) > 1 else ''} read ({', '.join(names[:3])}{' …' if len(names) > 3 else ''}), no text found.{found}"
        )


class _FileReader:
    """One input file on its way to documents, with its counts."""

    def __init__(self, path: Path, name: str, config: CorpusConfig, report: ReadReport, texts: Texts) -> None:
        self.path, self.name, self.config, self.report, self.texts = path, name, config, report, texts
        self.counts = FileReport(name)
        report.files.append(self.counts)
        self.stream = ByteStream(path)
        self._share: float | None = None
        self._lacking = self._found = 0
        self._fields: list[str] = []

    def position_bytes(self) -> int:
        """How far the file on disk has been read."""
        return self.stream.position_bytes if self._share is None else int(self._share * self.path.stat().st_size)

    def documents(self) -> Iterator[RawDocument]:
        for place, text in self._texts():
            self._found += not text.isspace() and text != ""
            yield RawDocument(place, text, self.counts)
        if self._share is None:
            self.counts.bytes = self.stream.unpacked_bytes
        if self._lacking and not self._found:
            self._complain_of_text_key()

    def _texts(self) -> Iterator[tuple[str, str]]:
        """(place, text as it stands in the file)."""
        kind, blocks = suffixes(self.path)[0], self._decoded()
        if kind == "wiki":
            head, blocks = _peek(blocks)
            kind = "wiki" if head.startswith(START) else "jsonl" if head.startswith(("{", "[")) else "txt"
        if kind == "wiki":
            for line, text in split_wiki(blocks, self._broken):
                yield f"{self.name}:{line}", text
            return
        if kind in ("txt", "md"):
            whole = self.config.txt_split == "file"
            for line, text in split_text(
                blocks, self.config.txt_split, self.config.separator, self.config.chapter_pattern
            ):
                yield self.name if whole else f"{self.name}:{line}", text
            return
        for place, record in self._records(kind, blocks):
            for number, text in enumerate(self.texts(record, self.config.text_key), 1):
                if isinstance(text, str):
                    yield place if number == 1 else f"{place}.{number}", text
                else:
                    self._no_text(place, record, str(text))

    def _records(self, kind: str, blocks: Iterator[str]) -> Iterator[tuple[str, Any]]:
        if kind in ("parquet", "arrow"):
            self.counts.bytes = self.path.stat().st_size
            self.counts.encoding = kind
            key = self.config.text_key
            rows = read_parquet(self.path, key) if kind == "parquet" else read_arrow(self.path, key, self._broken)
            for row, share, record in rows:
                self._share = share
                yield f"{self.name}:{row}", record
        elif kind in ("csv", "tsv"):
            delimiter = "," if kind == "csv" else "\t"
            try:
                for line, record in read_csv(blocks, self.name, delimiter, self.config.text_key, self._broken):
                    yield f"{self.name}:{line}", record
            except FangcunError:
                # That the bytes are no text says more than that the header is none.
                self.report.check(self.config.max_broken_share)
                raise
        else:
            yield from self._json(kind, blocks)

    def _json(self, kind: str, blocks: Iterator[str]) -> Iterator[tuple[str, Any]]:
        # JSON lines are read by line, where a broken one costs nothing but itself. What is named .jsonl and is an
        # array is read as an array.
        head, blocks = _peek(blocks)
        if kind == "jsonl" and not head.startswith("["):
            for number, line in enumerate(split_lines(_bounded(blocks, self.name)), 1):
                if not line.strip():
                    continue
                try:
                    record = parse_json(line)
                except ValueError as error:
                    self._broken(number, f"not valid JSON ({error})", line, len(line.encode(errors="replace")))
                    continue
                yield f"{self.name}:{number}", record
            return
        for number, (line, record) in enumerate(stream_json(blocks, self.name, self._broken), 1):
            yield f"{self.name}:{line}/{number}", record

    def _decoded(self) -> Iterator[str]:
        def on_bad(line: int, count: int) -> None:
            self.counts.encoding = decoder.name
            self.report.bad_bytes(self.counts, line, count)

        decoder = StreamDecoder(self.name, self.config.encoding, on_bad)
        for block in decoder.decode(self.stream):
            self.counts.encoding = decoder.name
            self.counts.bytes = self.stream.unpacked_bytes
            limit = max(_HOPELESS_SHARE, self.config.max_broken_share)
            if self.counts.bytes > _HOPELESS_BYTES and self.counts.broken_bytes > limit * self.counts.bytes:
                self.report.check(self.config.max_broken_share)
            yield block
        self.counts.encoding = decoder.name

    def _broken(self, line: int, reason: str, excerpt: str, size_bytes: int) -> None:
        self.report.broken_record(self.counts, f"{self.name}:{line}", reason, excerpt, size_bytes)

    def _no_text(self, place: str, record: Any, reason: str) -> None:
        self.report.broken_record(self.counts, place, reason, str(record)[:200])
        if self.config.text_key is not None and isinstance(record, dict) and self.config.text_key not in record:
            if not self._lacking:
                self._fields = [str(key) for key in record]
            self._lacking += 1
            if self._lacking >= _PATIENCE_RECORDS and not self._found:
                self._complain_of_text_key()

    def _complain_of_text_key(self) -> None:
        key = str(self.config.text_key)
        found = ", ".join(repr(name) for name in self._fields[:12])
        raise FangcunError(
            f"{self.name}: the records have no field '{key}' (corpus.text_key). Their fields: {found}.{did_you_mean(key, self._fields)}"
        )


def _peek(blocks: Iterator[str]) -> tuple[str, Iterator[str]]:
    """The first block that is not blank, from its first character on, and all blocks (of blank ones the line ends)."""
    blank_lines = 0
    for block in blocks:
        if block.strip():
            return block.lstrip(), itertools.chain(itertools.repeat("\n", blank_lines), [block], blocks)
        blank_lines += block.count("\n")
    return "", iter(())


def _bounded(blocks: Iterable[str], name: str) -> Iterator[str]:
    """Pass blocks on; a line longer than any document raises, before it fills the memory."""
    length = 0
    for block in blocks:
        length = length + len(block) if "\n" not in block else len(block) - block.rindex("\n")
        if length > MAX_RECORD_CHARACTERS:
            raise FangcunError(
                f"{name} has a line of more than {MAX_RECORD_CHARACTERS:,} characters, too large to be one document. Expected one JSON record a line."
            )
        yield block
