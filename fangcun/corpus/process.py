"""Raw documents to clean ones: each is cleaned and filtered by itself, in this process or in several.

The result does not depend on how many there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from fangcun.config.cleaning import Rules
from fangcun.config.schema import CorpusConfig
from fangcun.corpus.clean import Cleaner
from fangcun.corpus.dedup import Duplicates, Folding, Sketches, sketch
from fangcun.corpus.documents import Document, document_id
from fangcun.corpus.drops import Drops
from fangcun.corpus.filters import Filter
from fangcun.corpus.readers import Progress, RawDocument, check_read, input_files, read_raw
from fangcun.corpus.report import FileReport, ReadReport
from fangcun.errors import FangcunError
from fangcun.processes import available_cores, ordered_map

SMALL_CORPUS_BYTES = 32_000_000
"""Below this, starting processes takes longer than they save."""

_BATCH_CHARACTERS = 1 << 19
_BATCH_DOCUMENTS = 2000


@dataclass(slots=True)
class Outcome:
    """What became of one document."""

    text: str
    """After cleaning; empty where nothing was left."""
    dropped: tuple[str, str] | None
    """(rule, why) where a filter dropped it."""
    id: str = ""
    taken: dict[str, list[str]] = field(default_factory=dict)
    masked: int = 0
    mojibake: str | None = None


@dataclass(slots=True)
class Processed:
    """A batch of documents."""

    outcomes: list[Outcome]
    sketches: Sketches | None
    """Of those that stay, where duplicates are looked for."""


class Worker:
    """Cleaner and filter of a process."""

    def __init__(self, rules: Rules) -> None:
        self.cleaner, self.filter = Cleaner(rules.clean), Filter(rules.filter)
        self.folding = Folding(traditional=True) if rules.dedup.exact else None

    def work(self, texts: list[str]) -> Processed:
        """A batch."""
        outcomes = [self.one(text) for text in texts]
        stay = [outcome.text for outcome in outcomes if outcome.id]
        return Processed(outcomes, sketch(stay, self.folding) if self.folding is not None else None)

    def one(self, text: str) -> Outcome:
        """One document."""
        cleaned = self.cleaner.clean(text)
        dropped = self.filter.reason(cleaned.text) if cleaned.text else None
        identity = document_id(cleaned.text) if cleaned.text and not dropped else ""
        return Outcome(cleaned.text, dropped, identity, cleaned.taken, cleaned.masked, cleaned.mojibake)


def read_documents(
    config: CorpusConfig,
    report: ReadReport,
    rules: Rules | None = None,
    *,
    drops: Drops | None = None,
    duplicates: Duplicates | None = None,
    progress: Progress | None = None,
) -> Iterator[Document]:
    """Yield the documents of a corpus, cleaned and filtered, in the order of its files; empty ones are left out.

    `report`, `drops` and `duplicates` are filled on the way; copies are not left out here. Memory does not grow with the
    corpus (a single document is held whole). Raises FangcunError: nothing to read, unreadable files, more broken than `max_broken_share`, no document at all or
    none that the filters keep.
    """
    rules, drops = rules or Rules(), drops if drops is not None else Drops()
    raw = _batches(read_raw(config, report, progress=progress))
    waiting: list[list[tuple[str, FileReport]]] = []

    def texts() -> Iterator[list[str]]:
        for batch in raw:
            waiting.append([(document.place, document.counts) for document in batch])
            yield [document.text for document in batch]

    kept = 0
    for batch in _work(texts(), config, rules):
        outcomes = batch.outcomes
        if duplicates is not None and batch.sketches is not None:
            duplicates.add(batch.sketches, [outcome.id for outcome in outcomes if outcome.id])
        for (place, counts), outcome in zip(waiting.pop(0), outcomes, strict=True):
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
            else:
                kept += 1
                yield Document(outcome.text, place, outcome.id)
    check_read(config, report)
    if not kept:
        which = ", ".join(
            f"{name} {count['documents']:,}" for name, count in drops.as_dict().items() if not count["lines"]
        )
        raise FangcunError(
            f"The filters dropped all {report.total('documents'):,} documents ({which}). Loosen filter.*, or choose another corpus.preset."
        )


def _batches(documents: Iterable[RawDocument]) -> Iterator[list[RawDocument]]:
    batch: list[RawDocument] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if characters >= _BATCH_CHARACTERS or len(batch) >= _BATCH_DOCUMENTS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _work(batches: Iterable[list[str]], config: CorpusConfig, rules: Rules) -> Iterator[Processed]:
    workers = config.workers
    if workers is None:
        size_bytes = sum(path.stat().st_size for path in input_files(config)[0])
        workers = available_cores() if size_bytes >= SMALL_CORPUS_BYTES else 1
    worker = Worker(rules)  # what it cannot do is said here, not in a process
    if workers == 1:
        return map(worker.work, batches)
    return ordered_map(_work_on, batches, workers, _prepare, (rules,))


_worker: Worker | None = None
"""What a worker process works with; set once, by `_prepare`."""


def _prepare(rules: Rules) -> None:
    global _worker
    _worker = Worker(rules)


def _work_on(batch: list[str]) -> Processed:
    assert _worker is not None, "_prepare runs first"
    return _worker.work(batch)
