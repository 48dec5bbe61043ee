"""Records from tables: CSV and TSV with a header, Parquet and Arrow by column in batches."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

from fangcun.corpus.json_stream import MAX_RECORD_CHARACTERS
from fangcun.corpus.schemas import KNOWN_FIELDS, has_known_text
from fangcun.errors import FangcunError, did_you_mean

_PARQUET_ROWS = 512
_ARROW_FILE = b"ARROW1"
# A message of the length 0; streams of before Arrow 0.15 do not begin with its first half.
_ARROW_END = b"\xff\xff\xff\xff\0\0\0\0"


def check_columns(place: str, names: list[str], text_key: str | None) -> None:
    """Raise FangcunError when a table has no column with text, naming the columns it has."""
    found = ", ".join(repr(name[:40]) for name in names[:12]) + (" …" if len(names) > 12 else "")
    if text_key is not None:
        if text_key not in names:
            raise FangcunError(
                f"{place} has no column '{text_key}' (corpus.text_key). Its columns: {found}.{did_you_mean(text_key, names)}"
            )
    elif not has_known_text(names):
        raise FangcunError(
            f"{place} starts with {found}, among which no column of text is known (text, content, story, prompt + response …). "
            "Expected a header line; name the column with --corpus.text_key."
        )


def read_csv(
    blocks: Iterable[str],
    place: str,
    delimiter: str,
    text_key: str | None,
    on_broken: Callable[[int, str, str, int], None],
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line, row) of a table with a header; blanks after the delimiter are skipped, quotes are doubled inside quotes.

    A row of another length than the header is reported as broken: an unquoted delimiter would cut its text.
    """
    # The module keeps this one limit for the whole process; the default of 128 KiB is less than a long document.
    csv.field_size_limit(MAX_RECORD_CHARACTERS)
    reader = csv.reader(_lines_with_ends(blocks), delimiter=delimiter, skipinitialspace=True)
    header: list[str] | None = None
    try:
        end = 0
        for row in reader:
            line, end = end + 1, reader.line_num
            if not row or (len(row) == 1 and not row[0].strip()):
                continue
            if header is None:
                header = [name.strip() for name in row]
                check_columns(place, header, text_key)
            elif len(row) != len(header):
                text = delimiter.join(row)
                on_broken(
                    line,
                    f"{len(row)} fields, the header has {len(header)}",
                    text,
                    len(text.encode(errors="replace")),
                )
            else:
                yield line, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise FangcunError(
            f"{place}:{reader.line_num} cannot be read as a table ({error}). Probably a quotation mark before this line is not closed."
        ) from error


def _lines_with_ends(blocks: Iterable[str]) -> Iterator[str]:
    """Lines with their end, as the csv module wants them, so that line ends inside quotes stay."""
    rest: list[str] = []
    length = 0
    for block in blocks:
        first, *lines = block.split("\n")
        rest.append(first)
        length += len(first)
        if length > MAX_RECORD_CHARACTERS:
            raise csv.Error(f"a line of more than {MAX_RECORD_CHARACTERS:,} characters")
        if lines:
            yield "".join(rest) + "\n"
            for line in lines[:-1]:
                yield line + "\n"
            rest, length = [lines[-1]], len(lines[-1])
    if last := "".join(rest):
        yield last


def read_parquet(path: Path, text_key: str | None) -> Iterator[tuple[int, float, dict[str, Any]]]:
    """Yield (row from 1, share of the file read, row); only columns that can hold text are read.

    Needs pyarrow. A file is held one row group of the needed columns at a time. Raises FangcunError.
    """
    with _arrow_errors(path, "Parquet"):
        import pyarrow.parquet as parquet

        with parquet.ParquetFile(path, pre_buffer=False) as file:
            wanted = _wanted(path, list(file.schema_arrow.names), text_key)
            rows = max(1, file.metadata.num_rows)
            number = 0
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=wanted, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield number, number / rows, row


def read_arrow(
    path: Path, text_key: str | None, on_broken: Callable[[int, str, str, int], None]
) -> Iterator[tuple[int, float, dict[str, Any]]]:
    """As `read_parquet`, for the Arrow files of a Hugging Face dataset (`save_to_disk`): IPC streams, or IPC files.

    Needs pyarrow. A file is held one record batch at a time. Raises FangcunError. A stream without its end mark, which
    may have been cut between two batches, is reported.
    """
    with _arrow_errors(path, "Arrow"):
        import pyarrow

        size_bytes = max(1, path.stat().st_size)
        number = 0
        with pyarrow.OSFile(str(path)) as file:
            for batch in _arrow_batches(path, file, text_key):
                share = min(1.0, file.tell() / size_bytes)
                # A batch may be large; its rows become Python objects a few at a time.
                for start in range(0, batch.num_rows, _PARQUET_ROWS):
                    for row in batch.slice(start, _PARQUET_ROWS).to_pylist():
                        number += 1
                        yield number, share, row
            file.seek(0)
            if file.read(4) == _ARROW_END[:4]:
                file.seek(size_bytes - len(_ARROW_END))
                if file.read(len(_ARROW_END)) != _ARROW_END:
                    on_broken(number, "the stream has no end mark: the file may be cut short", "", 0)


def _arrow_batches(path: Path, file: Any, text_key: str | None) -> Iterator[Any]:
    from pyarrow import ipc

    whole = file.read(len(_ARROW_FILE)) == _ARROW_FILE
    file.seek(0)
    # Opened twice: the names are known after the first, and only the columns that are wanted are unpacked.
    names = list((ipc.open_file if whole else ipc.open_stream)(file).schema.names)
    wanted = _wanted(path, names, text_key)
    options = ipc.IpcReadOptions(included_fields=[names.index(name) for name in wanted], use_threads=False)
    file.seek(0)
    if whole:
        reader = ipc.open_file(file, options=options)
        yield from (reader.get_batch(index) for index in range(reader.num_record_batches))
    else:
        yield from ipc.open_stream(file, options=options)


def _wanted(path: Path, names: list[str], text_key: str | None) -> list[str]:
    """The columns to read. Raises FangcunError when none holds text."""
    wanted = [text_key] if text_key in names else [name for name in names if name.strip().lower() in KNOWN_FIELDS]
    if text_key is not None or not wanted:
        check_columns(str(path), names, text_key)
    return wanted


@contextlib.contextmanager
def _arrow_errors(path: Path, kind: str) -> Generator[None, None, None]:
    try:
        import pyarrow
    except ImportError as error:
        raise FangcunError(f"{path} is {kind}, for which pyarrow is needed. Install it: pip install pyarrow") from error
    try:
        yield
    except PermissionError as error:
        raise FangcunError(f"{path} cannot be read: {error.strerror}. Check its rights.") from error
    except (pyarrow.ArrowException, OSError) as error:
        raise FangcunError(
            f"{path} is no {kind} file that can be read ({str(error).splitlines()[0]}). Fetch it again."
        ) from error
