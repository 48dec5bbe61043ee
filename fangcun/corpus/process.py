"""Raw documents to clean ones: each is cleaned and filtered by itself, in this process or in several.

The result does not depend on how many there are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from fangcun.config.cleaning import CleanConfig, DedupConfig, FilterConfig, Rules
from fangcun.config.schema import CorpusConfig
from fangcun.corpus.clean import Cleaner
from fangcun.corpus.dedup import Folding, References, Sketches, paragraph_hashes, sketch
from fangcun.corpus.documents import Document, document_id
from fangcun.corpus.drops import Drops
from fangcun.corpus.filters import Filter
from fangcun.corpus.readers import Progress, RawDocument, check_read, read_raw
from fangcun.corpus.report import FileReport, ReadReport
from fangcun.corpus.sources import Source, corpus_sources
from fangcun.errors import FangcunError
from fangcun.processes import available_cores, ordered_map

SMALL_CORPUS_BYTES = 32_000_000
"""Below this, starting processes takes longer than they save."""

_BATCH_CHARACTERS = 1 << 19
_BATCH_DOCUMENTS = 2000
_QUOTED = 40


@dataclass(slots=True)
class Outcome:
    """What became of one document."""

    text: str
    """After cleaning; empty where nothing was left."""
    dropped: tuple[str, str] | None
    """(rule, why) where it was left out."""
    id: str = ""
    """Empty where it does not stay."""
    size_bytes: int = 0
    """Of the text in UTF-8, where it stays."""
    taken: dict[str, list[str]] = field(default_factory=dict)
    masked: int = 0
    mojibake: str | None = None


@dataclass(slots=True)
class Batch:
    """Documents of one source that have been worked on."""

    source: int
    documents: list[tuple[str, FileReport]]
    """Place and file of each."""
    outcomes: list[Outcome]
    sketches: Sketches | None
    """Of those that stay, where copies are looked for."""
    paragraphs: list[np.ndarray] | None
    """Hashes of the paragraphs of those that stay, where these are compared."""

    def kept(self) -> Iterator[tuple[str, Outcome]]:
        """Place and outcome of those that stay."""
        for (place, _), outcome in zip(self.documents, self.outcomes, strict=True):
            if outcome.id:
                yield place, outcome


class Worker:
    """What a process works with: cleaner and filter of each source."""

    def __init__(self, rules: Sequence[Rules], references: References | None = None) -> None:
        self.tools = [(Cleaner(each.clean), Filter(each.filter)) for each in rules]
        self.rules, self.references = rules[0], references
        dedup = self.rules.dedup
        self.folding = (
            Folding(traditional=True) if self.rules.finds_copies or dedup.paragraph_documents is not None else None
        )

    def work(self, batch: tuple[int, list[str]]) -> tuple[list[Outcome], Sketches | None, list[np.ndarray] | None]:
        """Texts of a source."""
        source, texts = batch
        outcomes = [self.one(source, text) for text in texts]
        return outcomes, *self.compare([outcome.text for outcome in outcomes if outcome.id])

    def compare(self, texts: list[str]) -> tuple[Sketches | None, list[np.ndarray] | None]:
        """What is kept of texts to find copies and repeated paragraphs by."""
        if self.folding is None:
            return None, None
        dedup = self.rules.dedup
        sketches = sketch(texts, self.folding) if self.rules.finds_copies else None
        if dedup.paragraph_documents is None:
            return sketches, None
        return sketches, paragraph_hashes(texts, self.folding, dedup.paragraph_characters)

    def one(self, source: int, text: str) -> Outcome:
        """One document."""
        cleaner, rules = self.tools[source]
        cleaned = cleaner.clean(text)
        dropped = rules.reason(cleaned.text) if cleaned.text else None
        if cleaned.text and not dropped and self.references is not None:
            dropped = contamination(self.references, cleaned.text)
        data = cleaned.text.encode() if not dropped else b""
        identity = document_id(data) if data else ""
        return Outcome(cleaned.text, dropped, identity, len(data), cleaned.taken, cleaned.masked, cleaned.mojibake)


def contamination(references: References, text: str, rule: str = "references") -> tuple[str, str] | None:
    """(rule, why) where a document shares text with one of `references`."""
    found = references.find(text)
    if not found:
        return None
    quoted = found[0].text[:_QUOTED].replace("\n", " ")
    return rule, f"{found[0].characters} characters of {found[0].reference}: {quoted}"


def work_batches(
    sources: Sequence[Source],
    report: ReadReport,
    *,
    workers: int | None = None,
    references: References | None = None,
    skip: Skip | None = None,
    progress: Progress | None = None,
) -> Iterator[Batch]:
    """Read, clean and filter, a batch at a time, in the order of the files. `report` is filled on the way."""
    waiting: deque[tuple[int, list[RawDocument]]] = deque()

    def texts() -> Iterator[tuple[int, list[str]]]:
        for source, batch in _batches(_read_all(sources, report, skip, progress)):
            waiting.append((source, batch))
            yield source, [document.text for document in batch]

    for outcomes, sketches, paragraphs in _work(texts(), sources, workers, references):
        source, batch = waiting.popleft()
        yield Batch(source, [(raw.place, raw.counts) for raw in batch], outcomes, sketches, paragraphs)


@dataclass(frozen=True)
class Skip:
    """Documents that were worked on before: they are read and counted, and passed over."""

    documents: int
    empty: frozenset[int]
    """Numbers of those that cleaning left nothing of."""


def account(batch: Batch, drops: Drops) -> None:
    """Count what became of the documents, in their files and in `drops`."""
    for (place, counts), outcome in zip(batch.documents, batch.outcomes, strict=True):
        for rule, lines in outcome.taken.items():
            drops.take(rule, lines, place)
        drops.masked += outcome.masked
        if outcome.mojibake:
            drops.mojibake[outcome.mojibake] += 1
        if not outcome.text:
            counts.empty_documents += 1
            continue
        counts.documents += 1
        if outcome.dropped:
            drops.drop(*outcome.dropped, outcome.text, place)


def check_kept(config: CorpusConfig, report: ReadReport, drops: Drops, kept: int) -> None:
    """Raise FangcunError when more is broken than allowed, nothing was found, or nothing stays."""
    check_read(config, report)
    if not kept:
        which = ", ".join(
            f"{name} {count['documents']:,}" for name, count in drops.as_dict().items() if not count["lines"]
        )
        raise FangcunError(
            f"The filters dropped all {report.total('documents'):,} documents ({which}). Loosen what dropped them (filter.*, corpus.preset, dedup.references)."
        )


def read_documents(
    config: CorpusConfig,
    report: ReadReport,
    rules: Rules | None = None,
    *,
    drops: Drops | None = None,
    progress: Progress | None = None,
) -> Iterator[Document]:
    """Yield the documents of a corpus, cleaned and filtered, in the order of its files; empty ones are left out.

    `report` and `drops` are filled on the way; documents are not compared with each other. Memory does not grow with
    the corpus (a single document is held whole). Raises FangcunError: nothing to read, unreadable files, more broken
    than `max_broken_share`, no document at all or none that the filters keep.
    """
    drops, kept = drops if drops is not None else Drops(), 0
    for batch in work_batches(corpus_sources(config, rules), report, workers=config.workers, progress=progress):
        account(batch, drops)
        for place, outcome in batch.kept():
            kept += 1
            yield Document(outcome.text, place, outcome.id)
    check_kept(config, report, drops, kept)


def _read_all(
    sources: Sequence[Source], report: ReadReport, skip: Skip | None, progress: Progress | None
) -> Iterator[tuple[int, RawDocument]]:
    total, done, number = sum(source.size_bytes for source in sources), 0, 0

    def advance(now: int, _: int) -> None:
        if progress is not None:
            progress(done + now, total)

    for place, source in enumerate(sources):
        for document in read_raw(source, report, progress=advance):
            number += 1
            if skip is None or number > skip.documents:
                yield place, document
            elif number - 1 in skip.empty:
                document.counts.empty_documents += 1
            else:
                document.counts.documents += 1
        done += source.size_bytes


def _batches(documents: Iterable[tuple[int, RawDocument]]) -> Iterator[tuple[int, list[RawDocument]]]:
    batch: list[RawDocument] = []
    characters, current = 0, 0
    for source, document in documents:
        if source != current or characters >= _BATCH_CHARACTERS or len(batch) >= _BATCH_DOCUMENTS:
            if batch:
                yield current, batch
            batch, characters, current = [], 0, source
        batch.append(document)
        characters += len(document.text)
    if batch:
        yield current, batch


def _work(
    batches: Iterable[tuple[int, list[str]]],
    sources: Sequence[Source],
    workers: int | None,
    references: References | None,
) -> Iterator[tuple[list[Outcome], Sketches | None, list[np.ndarray] | None]]:
    rules = [source.rules for source in sources]
    if workers is None:
        large = sum(source.size_bytes for source in sources) >= SMALL_CORPUS_BYTES
        workers = available_cores() if large and not all(map(_is_light, rules)) else 1
    worker = Worker(rules, references)  # what it cannot do is said here, not in a process
    if workers == 1:
        return map(worker.work, batches)
    return ordered_map(_work_on, batches, workers, _prepare, (rules, references))


def _is_light(rules: Rules) -> bool:
    """Whether reading takes longer than the work: texts then cost more on the way to a process than they gain there."""
    plain = Rules(CleanConfig(tidy=rules.clean.tidy, mojibake=rules.clean.mojibake), FilterConfig(), DedupConfig())
    return rules == plain


_worker: Worker | None = None
"""What a worker process works with; set once, by `_prepare`."""


def _prepare(rules: Sequence[Rules], references: References | None) -> None:
    global _worker
    _worker = Worker(rules, references)


def _work_on(batch: tuple[int, list[str]]) -> tuple[list[Outcome], Sketches | None, list[np.ndarray] | None]:
    assert _worker is not None, "_prepare runs first"
    return _worker.work(batch)
