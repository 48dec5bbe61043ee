"""What a corpus is made of: `fangcun corpus report`. One pass over the documents, in bounded memory.

Counts are of everything; the common runs of characters come from a sample of the documents, chosen by their hashes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from fangcun.artifacts import read_manifest
from fangcun.corpus.documents import Document
from fangcun.corpus.filters.page import KIND_NAMES, Page
from fangcun.corpus.filters.rules import language
from fangcun.corpus.shards import iter_split

SAMPLE_CHARACTERS = 8_000_000
"""In which common runs are looked for."""

WORD, PHRASE = 1, 3
"""log2 of their lengths: pairs say what it is about, runs of eight show what is left of a page's frame."""

_TOP = 20
_LONGEST_LOG10 = 8
_BINS_A_DECADE = 4


def corpus_statistics(corpus: Path) -> dict[str, Any]:
    """The report of a corpus folder, as JSON values. Raises FangcunError.

    `splits`, `named_sources` (documents, characters and bytes of each, of both splits), `characters` (by kind, white space aside), `languages` (documents), `lengths` (quantiles and a histogram of
    characters a document), `sources` (documents and characters of the first ones), `common`, and what reading and the
    rules left out.
    """
    corpus = Path(corpus)
    manifest = read_manifest(corpus, "corpus")
    drops = json.loads((corpus / "drops.json").read_text(encoding="utf-8"))
    total = sum(manifest.counts[split]["characters"] for split in ("train", "val"))
    gathered = _Gathered(share=min(1.0, SAMPLE_CHARACTERS / max(1, total)))
    for split in ("train", "val"):
        gathered.add_all(iter_split(corpus, split))
    return {
        "splits": {split: manifest.counts[split] for split in ("train", "val")},
        "named_sources": _named_sources(manifest.counts),
        **gathered.as_dict(),
        "left_out": drops.get("rules", {}),
        "broken_records": drops["broken_records"],
        "empty_documents": drops["empty_documents"],
    }


def _named_sources(counts: dict[str, Any]) -> dict[str, dict[str, int]]:
    train, val = (counts[split].get("sources", {}) for split in ("train", "val"))
    return {
        name: {what: count + val[name][what] for what, count in of_train.items()} for name, of_train in train.items()
    }


class _Gathered:
    def __init__(self, share: float) -> None:
        self.share = share
        self.kinds = np.zeros(8, np.int64)
        self.languages: Counter[str] = Counter()
        self.sources: dict[str, list[int]] = {}
        self.histogram = np.zeros(_LONGEST_LOG10 * _BINS_A_DECADE + 1, np.int64)
        self.longest = self.documents = self.spaces = 0
        self.sample: list[str] = []

    def add_all(self, documents: Iterable[Document]) -> None:
        for document in documents:
            self.add(document)

    def add(self, document: Document) -> None:
        page, size = Page(document.text), len(document.text)
        self.documents += 1
        self.kinds += page.counts
        self.spaces += size - page.characters
        self.languages[_language(page)] += 1
        source = self.sources.setdefault(document.source.partition(":")[0], [0, 0])
        source[0] += 1
        source[1] += size
        self.histogram[min(len(self.histogram) - 1, int(np.log10(max(1, size)) * _BINS_A_DECADE))] += 1
        self.longest = max(self.longest, size)
        if int(document.id[:8], 16) < self.share * 2**32:
            self.sample.append(document.text)

    def as_dict(self) -> dict[str, Any]:
        largest = sorted(self.sources.items(), key=lambda item: (-item[1][1], item[0]))
        return {
            "characters": dict(zip(KIND_NAMES, [self.spaces, *self.kinds[1:].tolist()], strict=True)),
            "languages": dict(self.languages.most_common()),
            "lengths": {
                **{f"{share:.0%}": self._quantile(share) for share in (0.1, 0.5, 0.9)},
                "longest": self.longest,
                "histogram": [
                    {"from": round(10 ** (number / _BINS_A_DECADE)), "documents": int(count)}
                    for number, count in enumerate(self.histogram)
                    if count
                ],
            },
            "sources": [{"name": name, "documents": n, "characters": size} for name, (n, size) in largest[:_TOP]],
            "n_sources": len(self.sources),
            "common": {
                "sampled_documents": len(self.sample),
                "pairs": common_runs(self.sample, WORD),
                "runs_of_8": common_runs(self.sample, PHRASE),
            },
        }

    def _quantile(self, share: float) -> int:
        """The lower edge of the bin in which it lies."""
        return round(10 ** (int(np.searchsorted(self.histogram.cumsum(), share * self.documents)) / _BINS_A_DECADE))


def _language(page: Page) -> str:
    if not page.letters:
        return "no letters"
    return next((name for name in ("zh", "en") if language(page, name) is None), "other")


def common_runs(texts: list[str], log2_n: int, most: int = _TOP) -> list[dict[str, Any]]:
    """The runs of 2 ** log2_n characters that stand in most documents: `text` and `documents`. White space is left out."""
    n = 1 << log2_n
    hashes, counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    waiting: list[np.ndarray] = []
    for text in texts:
        waiting.append(np.unique(Page(text).runs(log2_n)))
        if sum(map(len, waiting)) > 4_000_000:
            hashes, counts = _merge(hashes, counts, waiting)
    hashes, counts = _merge(hashes, counts, waiting)
    best = np.lexsort((hashes, -counts))[:most]
    wanted = {int(hashes[number]): int(counts[number]) for number in best if counts[number] > 1}
    found: dict[int, str] = {}
    for text in texts:
        if len(found) == len(wanted):
            break
        page = Page(text)
        for start in np.flatnonzero(np.isin(page.runs(log2_n), np.array([*wanted], np.uint64))).tolist():
            run = page.codes[start : start + n].tobytes().decode("utf-32-le", "replace")
            found.setdefault(int(page.runs(log2_n)[start]), run)
    return [{"text": found[hashed], "documents": count} for hashed, count in wanted.items()]


def _merge(hashes: np.ndarray, counts: np.ndarray, waiting: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Counts with those of more documents; `waiting` is emptied. Beyond some millions, runs that were seen once go."""
    fresh = np.concatenate([hashes, *waiting])
    weights = np.concatenate([counts, np.ones(len(fresh) - len(hashes), np.int64)])
    waiting.clear()
    hashes, places = np.unique(fresh, return_inverse=True)
    counts = np.bincount(places, weights, minlength=len(hashes)).astype(np.int64)
    if len(hashes) > 8_000_000:
        hashes, counts = hashes[counts > 1], counts[counts > 1]
    return hashes, counts
