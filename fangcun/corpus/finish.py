"""The second pass of a corpus: what stays is known now, and is split and written in its final order.

Documents that say again what another one says go first; then each source is split; then repeated paragraphs, and what
training would learn of the held-out text, are taken out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fangcun.config.schema import CorpusConfig
from fangcun.corpus.dedup import EXACT, Copies, Folding, References, RepeatedParagraphs
from fangcun.corpus.documents import Document, document_id
from fangcun.corpus.drops import Drops
from fangcun.corpus.filters import Filter
from fangcun.corpus.process import contamination
from fangcun.corpus.shards import ShardWriter
from fangcun.corpus.sources import Source
from fangcun.corpus.split import choose_share, choose_split, split_by_hash, split_by_tail
from fangcun.corpus.work import Work
from fangcun.corpus.works import Works
from fangcun.errors import FangcunError


@dataclass
class Decided:
    """What the numbers of all documents say."""

    stays: np.ndarray
    """bool, of each document of the first pass."""
    copies: Copies | None
    repeated: RepeatedParagraphs | None
    how: list[str]
    """hash or tail, of each source."""
    share: float
    """Held out for validation."""
    characters: list[int]
    """Of the documents of each source that stay."""


def decide(work: Work | Works, config: CorpusConfig, sources: Sequence[Source]) -> Decided:
    """Find copies and repeated paragraphs, and choose the split."""
    numbers = work.numbers()
    copies = work.duplicates.find(near=work.rules.dedup.near) if work.duplicates is not None else None
    stays = copies.copy_of < 0 if copies is not None else np.ones(len(numbers), bool)
    repeated = None
    if work.paragraphs is not None:
        gone = np.setdiff1d(numbers["id"][~stays], numbers["id"][stays])
        repeated = work.paragraphs.repeated(without=gone)
    of_source = [stays & (numbers["source"] == number) for number in range(len(sources))]
    return Decided(
        stays,
        copies,
        repeated,
        [choose_split(config.val_split, int(chosen.sum())) for chosen in of_source],
        choose_share(config.val_share, int(numbers["bytes"][stays].sum())),
        [int(numbers["characters"][chosen].sum()) for chosen in of_source],
    )


@dataclass
class Written:
    """Counts of what the second pass wrote."""

    sources: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    """Split to source to documents, characters, bytes."""

    def add(self, split: str, source: str, document: Document, size_bytes: int) -> None:
        """Count one document."""
        counts = self.sources.setdefault(split, {}).setdefault(source, {"documents": 0, "characters": 0, "bytes": 0})
        counts["documents"] += 1
        counts["characters"] += document.characters
        counts["bytes"] += size_bytes


@dataclass
class Slice:
    """Documents of the first pass that follow each other, and what was decided of each."""

    stays: np.ndarray
    sources: np.ndarray
    """Number of the source of each."""
    copies: Copies | None
    """Of these documents; `copy_of` counts from the first one of all."""
    places: dict[int, str]
    """Of the documents that those here are copies of."""
    before: list[int]
    """Characters of the documents of each source that stay and come before these."""


def cut_slices(work: Work | Works, decided: Decided, bounds: Sequence[int]) -> Iterator[Slice]:
    """The documents from each bound to the next."""
    numbers, copies = work.numbers(), decided.copies
    partners = set(copies.copy_of[copies.copy_of >= 0].tolist()) if copies is not None else ()
    places = {n: place for n, place in enumerate(work.places()) if n in partners} if partners else {}
    before = [0] * len(decided.how)
    for start, stop in itertools.pairwise(bounds):
        some, stays = numbers[start:stop], decided.stays[start:stop]
        own = None
        if copies is not None:
            own = Copies(copies.copy_of[start:stop], copies.kind[start:stop], copies.similarity[start:stop])
        of_own = own.copy_of[own.copy_of >= 0].tolist() if own is not None else ()
        yield Slice(stays, some["source"], own, {n: places[n] for n in of_own}, list(before))
        for source in range(len(before)):
            before[source] += int(some["characters"][stays & (some["source"] == source)].sum())


def write_splits(
    finisher: Finisher, sources: Sequence[Source], drops: Drops, writers: Mapping[str, ShardWriter]
) -> Written:
    """Write the documents that stay; count the others in `drops`."""
    written = Written({split: {} for split in writers})
    for split, source, document in finisher.split(drops):
        left = finisher.finish(split, source, document, drops)
        if left is not None:
            written.add(split, sources[source].name, left, writers[split].write(left))
    return written


class Finisher:
    """Takes the documents of a slice to what is written of them. `stored` gives them, each time that it is called."""

    def __init__(
        self, stored: Callable[[], Iterator[Document]], slice_: Slice, decided: Decided, sources: Sequence[Source]
    ) -> None:
        self.stored, self.slice, self.decided = stored, slice_, decided
        self.filters = [Filter(source.rules.filter) for source in sources]
        self.dedup = sources[0].rules.dedup
        self.held_out: References | None = None

    def keep_out(self, texts: Iterable[tuple[str, str]]) -> None:
        """Let training not have what is said in `texts` of (place, text): those that `held_out_texts` gives, of all slices."""
        characters = self.dedup.overlap_characters
        self.held_out = References(texts, Folding(traditional=True), ngram_characters=characters)

    def held_out_texts(self) -> Iterator[Document]:
        """The documents of the slice that are held out, as they are before anything is taken out of them."""
        return (document for split, _, document in self.split() if split == "val")

    def split(self, drops: Drops | None = None) -> Iterator[tuple[str, int, Document]]:
        """(split, source, document) of each document that stays; copies are counted in `drops`."""
        for source, group in itertools.groupby(self._staying(drops), key=lambda entry: entry[0]):
            documents = (document for _, document in group)
            share, how = self.decided.share, self.decided.how[source]
            if how == "hash":
                parts = split_by_hash(documents, share)
            else:
                characters, before = self.decided.characters[source], self.slice.before[source]
                parts = split_by_tail(documents, share, characters, before)
            for name, document in parts:
                yield name, source, document

    def _staying(self, drops: Drops | None) -> Iterator[tuple[int, Document]]:
        copies, places = self.slice.copies, self.slice.places
        for number, (source, document) in enumerate(zip(self.slice.sources.tolist(), self.stored(), strict=True)):
            if copies is None or (partner := int(copies.copy_of[number])) < 0:
                yield source, document
            elif drops is None:
                continue
            elif copies.kind[number] == EXACT:
                drops.drop("exact_duplicate", f"of {places[partner]}", document.text, document.source)
            else:
                reason = f"{copies.similarity[number]:.0%} like {places[partner]}"
                drops.drop("near_duplicate", reason, document.text, document.source)

    def finish(self, split: str, source: int, document: Document, drops: Drops) -> Document | None:
        """The document as it is written, or None where it is left out after all."""
        repeated = self.decided.repeated
        if repeated is not None:
            text, taken = repeated.strip(document.text, document.id.partition("-")[0])
            if taken and not text:
                drops.drop("repeated_paragraphs", "nothing else is in it", document.text, document.source)
                return None
            if taken:
                drops.take("repeated_paragraphs", taken, document.source)
                document = Document(text, document.source, document_id(text))
                if dropped := self.filters[source].reason(text):
                    drops.drop(*dropped, text, document.source)
                    return None
        if split == "train" and self.held_out is not None:
            dropped = contamination(self.held_out, document.text, "held_out")
            if dropped is not None:
                drops.drop(*dropped, document.text, document.source)
                return None
        return document


def check_split(train: int, val: int, decided: Decided, held_out: int = 0) -> None:
    """Raise FangcunError where a split has no documents and should have some."""
    total, how = train + val, " and ".join(sorted(set(decided.how)))
    if not train and held_out:
        raise FangcunError(
            f"No text is left to train on: dedup.held_out left out {held_out:,} documents that share text with the validation split. Set dedup.held_out: false, raise dedup.overlap_characters, or add text."
        )
    if not train:
        raise FangcunError(
            f"No text is left to train on: all {total} documents went to validation (val_split {how}, val_share {decided.share}). Add text, or lower --corpus.val_share."
        )
    if decided.share > 0 and not val:
        raise FangcunError(
            f"No text is held out: none of {total} documents went to validation (val_split {how}, val_share {decided.share}). Add text, raise --corpus.val_share, or use --corpus.val_split tail."
        )


def split_settings(decided: Decided, sources: Sequence[Source]) -> dict[str, Any]:
    """What `auto` came to, for the manifest."""
    named = bool(sources[0].name)
    how = {source.name: how for source, how in zip(sources, decided.how, strict=True)} if named else decided.how[0]
    return {"val_split_used": how, "val_share_used": decided.share}
