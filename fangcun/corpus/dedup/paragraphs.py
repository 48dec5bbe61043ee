"""Paragraphs that stand in many documents: page furniture, disclaimers, quoted laws.

Two passes. The first writes (hash, document) of each long paragraph to files parted by hash, and counts file after
file, so that memory does not grow with the corpus; the second takes the repeated ones out. One document keeps each: the
one with the smallest id, so that neither order nor workers matter, and a law that many pages quote is still there once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fangcun.corpus.dedup.folding import Folding
from fangcun.corpus.dedup.sketches import hash_folded
from fangcun.errors import FangcunError

_PARTS = 64
_BUFFER = 1 << 18
_RECORD = np.dtype([("hash", "<u8"), ("id", "<u8")])


def paragraph_hashes(texts: Sequence[str], folding: Folding, min_characters: int) -> list[np.ndarray]:
    """For each text the hashes (uint64, sorted, each once) of its lines with at least `min_characters` that count.

    A pure function, fit for worker processes.
    """
    hashes: list[set[int]] = [set() for _ in texts]
    for number, _, value in _long_lines([text.split("\n") for text in texts], folding, min_characters):
        hashes[number].add(value)
    return [np.array(sorted(values), np.uint64) for values in hashes]


def _long_lines(
    documents: Sequence[Sequence[str]], folding: Folding, min_characters: int
) -> Iterator[tuple[int, int, int]]:
    """(document, line, hash) of each long line."""
    # Folding never lengthens a line, so short ones need not be folded.
    places = [
        (number, at)
        for number, lines in enumerate(documents)
        for at, line in enumerate(lines)
        if len(line) >= min_characters
    ]
    characters, starts = folding.fold([documents[number][at] for number, at in places])
    data, bounds = memoryview(characters.tobytes()), starts.tolist()
    for (number, at), start, end in zip(places, bounds, bounds[1:], strict=False):
        if end - start >= min_characters:
            yield number, at, hash_folded(data[4 * start : 4 * end])


@dataclass(frozen=True)
class RepeatedParagraphs:
    """What the first pass found; small and picklable. 16 bytes a repeated paragraph."""

    folding: Folding
    min_characters: int
    hashes: np.ndarray
    """uint64, sorted: paragraphs in `min_documents` or more."""
    keepers: np.ndarray
    """uint64: the smallest id of the documents that have it."""

    def __len__(self) -> int:
        return len(self.hashes)

    def strip(self, text: str, id: str) -> tuple[str, list[str]]:
        """The text without repeated paragraphs that another document keeps, and the lines taken out.

        The keeper keeps its first one. Blank lines around a paragraph taken out do not add up. The text may come out
        empty. `id` is `Document.id` as in the first pass.
        """
        if not len(self.hashes):
            return text, []
        lines = text.split("\n")
        found = list(_long_lines([lines], self.folding, self.min_characters))
        if not found:
            return text, []
        values = np.array([value for _, _, value in found], np.uint64)
        at = np.minimum(np.searchsorted(self.hashes, values), len(self.hashes) - 1)
        repeated = self.hashes[at] == values
        if not repeated.any():
            return text, []
        mine = self.keepers[at] == np.uint64(int(id, 16))
        seen: set[int] = set()
        going: set[int] = set()
        for place in np.flatnonzero(repeated).tolist():
            _, line, value = found[place]
            if mine[place] and value not in seen:
                seen.add(value)
            else:
                going.add(line)
        return _without(lines, going), [lines[line] for line in sorted(going)]


def _without(lines: list[str], going: set[int]) -> str:
    kept: list[str] = []
    after_gap = False
    for number, line in enumerate(lines):
        if number in going:
            after_gap = True
        elif line.strip():
            kept.append(line)
            after_gap = False
        elif not (after_gap and (not kept or not kept[-1].strip())):
            kept.append(line)
    if len(going) and not any(line.strip() for line in kept):
        return ""
    return "\n".join(kept)


class ParagraphCounter:
    """The first pass. `folder` takes 16 bytes a long paragraph; the caller deletes it.

    Takes paragraphs (lines) of at least `min_characters` that count in at least `min_documents` documents of different
    id. `positions` is what `flush` gave: the counter goes on from there.
    """

    def __init__(
        self, folder: Path, folding: Folding, *, min_characters: int = 20, min_documents: int = 4,
        positions: Sequence[int] | None = None,
    ) -> None:  # fmt: skip
        if min_characters < 1 or min_documents < 2:
            raise FangcunError(
                f"Repeated paragraphs were asked for from {min_characters} characters and {min_documents} documents on. Expected at least 1 and 2; 20 and 4 are usual."
            )
        self.folding, self.min_characters, self.min_documents = folding, min_characters, min_documents
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._paths = [folder / f"paragraphs-{part:02d}.bin" for part in range(_PARTS)]
        self._files: list[BinaryIO] = []
        for path, position in zip(self._paths, positions or [0] * _PARTS, strict=True):
            file = open(path, "r+b" if position else "w+b")  # noqa: SIM115
            self._files.append(file)
            file.truncate(position)
            file.seek(position)
        self._waiting: list[np.ndarray] = []
        self._count = 0

    def count(self, texts: Sequence[str], ids: Sequence[str]) -> None:
        """Count the paragraphs of some documents."""
        self.add(paragraph_hashes(texts, self.folding, self.min_characters), ids)

    def add(self, hashes: Sequence[np.ndarray], ids: Sequence[str]) -> None:
        """The same for hashes that `paragraph_hashes` made, in a worker process say."""
        for values, identity in zip(hashes, ids, strict=True):
            if len(values):
                records = np.empty(len(values), _RECORD)
                records["hash"], records["id"] = values, int(identity, 16)
                self._waiting.append(records)
                self._count += len(records)
        if self._count >= _BUFFER:
            self._write()

    def _write(self) -> None:
        if not self._waiting:
            return
        records = np.concatenate(self._waiting)
        part = (records["hash"] >> np.uint64(58)).astype(np.uint8)
        records = records[np.argsort(part, kind="stable")]
        ends = np.cumsum(np.bincount(part, minlength=_PARTS)).tolist()
        for file, start, end in zip(self._files, [0, *ends], ends, strict=False):
            file.write(records[start:end].tobytes())
        self._waiting, self._count = [], 0

    def flush(self) -> list[int]:
        """Write all that was counted, and return how far the files go."""
        self._write()
        for file in self._files:
            file.flush()
        return [file.tell() for file in self._files]

    def repeated(self, without: np.ndarray | None = None) -> RepeatedParagraphs:
        """The paragraphs that stand in enough documents; those whose ids (uint64) are in `without` do not count.

        Holds a 64th of the records at a time: about 1 byte a long paragraph of the corpus.
        """
        self.flush()
        hashes, keepers = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
        for path in self._paths:
            records = np.fromfile(path, _RECORD)
            if without is not None:
                records = records[~np.isin(records["id"], without)]
            if not len(records):
                continue
            records = np.unique(records)  # by hash, then by id: the same text read twice counts once
            first = np.flatnonzero(np.diff(records["hash"], prepend=records["hash"][0] ^ np.uint64(1)))
            often = np.diff(first, append=len(records)) >= self.min_documents
            hashes.append(records["hash"][first[often]])
            keepers.append(records["id"][first[often]])
        return RepeatedParagraphs(self.folding, self.min_characters, np.concatenate(hashes), np.concatenate(keepers))

    def close(self) -> None:
        """Close the files; they stay."""
        for file in self._files:
            file.close()
