"""Several first passes, each of a part of the corpus, seen as one: their documents come one after the other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from fangcun.artifacts import discard, write_text_atomic
from fangcun.config.cleaning import Rules
from fangcun.corpus.dedup import Duplicates, Folding, ParagraphCounter
from fangcun.corpus.documents import Document
from fangcun.corpus.drops import Drops
from fangcun.corpus.report import ReadReport
from fangcun.corpus.work import NUMBERS, places, read_state, stored

_FINISHED = "finished"


def is_finished(folder: Path, fingerprint: str) -> bool:
    """Whether a first pass with this fingerprint lies in `folder`, is done and was marked so."""
    try:
        return (folder / _FINISHED).read_text(encoding="utf-8") == fingerprint
    except OSError:
        return False


def mark_finished(folder: Path, fingerprint: str) -> None:
    """Say that the first pass is done in a file of its own: a state holds samples, and is long to read."""
    if not read_state(folder, fingerprint).get("done"):
        raise ValueError(f"{folder} is not done")
    write_text_atomic(folder / _FINISHED, fingerprint)


class Works:
    """First passes that are done, in the folders of `folders`, with the interface of Work to what it holds.

    `folder` takes what is made of all of them together. A context manager. Memory: nothing that grows but the counts of
    their files.
    """

    def __init__(self, folder: Path, rules: Rules, folders: Sequence[tuple[Path, str]]) -> None:
        """`folders`: path and fingerprint of each."""
        self.folder, self.rules = Path(folder), rules
        self.report, self.drops, self.documents = ReadReport(), Drops(), 0
        self._states: list[tuple[Path, dict[str, Any]]] = []
        for path, fingerprint in folders:
            state = read_state(path, fingerprint)
            if not state.get("done"):
                raise ValueError(f"{path} is not done")
            self.report.merge(ReadReport.restored(state["done"]))
            self.drops.merge(Drops.restored(state["drops"]))
            self.documents += state["documents"]
            self._states.append((path, {name: state[name] for name in ("documents", "parts")}))
        self._open = contextlib.ExitStack()

    @cached_property
    def duplicates(self) -> Duplicates | None:
        """The sketches of all, put together when they are first asked for."""
        if not self.rules.finds_copies:
            return None
        discard(self.folder / "sketches")
        folding, threshold = Folding(traditional=True).fingerprint, self.rules.dedup.similarity
        found = self._open.enter_context(Duplicates(self.folder / "sketches", threshold=threshold, folding=folding))
        for path, state in self._states:
            found.add_folder(path / "sketches", state["documents"])
        return found

    @cached_property
    def paragraphs(self) -> ParagraphCounter | None:
        """The paragraphs of all."""
        dedup = self.rules.dedup
        if dedup.paragraph_documents is None:
            return None
        counter = ParagraphCounter(
            self.folder / "paragraphs", Folding(traditional=True), min_characters=dedup.paragraph_characters,
            min_documents=dedup.paragraph_documents, others=[path / "paragraphs" for path, _ in self._states],
        )  # fmt: skip
        self._open.callback(counter.close)
        return counter

    @property
    def documents_of_each(self) -> list[int]:
        """Documents of each first pass."""
        return [state["documents"] for _, state in self._states]

    def __enter__(self) -> Works:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def numbers(self) -> np.ndarray:
        """`NUMBERS` of all documents."""
        return np.concatenate([np.fromfile(path / "numbers.bin", NUMBERS) for path, _ in self._states])

    def stored(self) -> Iterator[Document]:
        """All documents, in order."""
        for path, state in self._states:
            yield from stored(path, state["parts"])

    def places(self) -> Iterator[str]:
        """The place of each document, in order."""
        for path, state in self._states:
            yield from places(path, state["parts"])
