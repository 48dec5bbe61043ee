"""What cleaning took out and filters dropped: counted by rule, with samples to look at.

The samples are those with the smallest hashes, so that they do not depend on the order of the documents.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import zstandard

from fangcun.corpus.documents import document_id

SAMPLES_FILE = "dropped.jsonl.zst"
SAMPLES = 50
"""Kept of each rule."""
_SAMPLE_CHARACTERS = 4000


@dataclass
class RuleCount:
    """What one rule did."""

    documents: int = 0
    """Documents dropped, or changed by a rule that takes lines."""
    lines: int = 0
    bytes: int = 0
    """UTF-8 bytes that went."""
    samples: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """A heap of (inverted hash, sample): its head is the one to go next."""


class Drops:
    """Counts and samples of all rules."""

    def __init__(self) -> None:
        self.rules: dict[str, RuleCount] = {}
        self.masked = 0
        self.mojibake: Counter[str] = Counter()
        """How they were misread to the number of documents."""

    def drop(self, rule: str, reason: str, text: str, source: str) -> None:
        """A document that a filter dropped."""
        count = self.rules.setdefault(rule, RuleCount())
        count.documents += 1
        count.bytes += len(text.encode())
        self._sample(count, text, {"rule": rule, "reason": reason, "source": source, "characters": len(text)})

    def take(self, rule: str, lines: list[str], source: str) -> None:
        """Lines that cleaning took out of a document."""
        count = self.rules.setdefault(rule, RuleCount())
        count.documents += 1
        count.lines += len(lines)
        for line in lines:
            count.bytes += len(line.encode())
            self._sample(count, line, {"rule": rule, "reason": "line", "source": source, "characters": len(line)})

    def documents(self, rule: str) -> int:
        """How many a rule dropped."""
        return self.rules[rule].documents if rule in self.rules else 0

    def as_dict(self) -> dict[str, dict[str, int]]:
        """Rule to documents, lines and bytes, those that took most first."""
        ordered = sorted(self.rules.items(), key=lambda item: (-item[1].bytes, item[0]))
        return {
            name: {"documents": count.documents, "lines": count.lines, "bytes": count.bytes} for name, count in ordered
        }

    def state(self) -> dict[str, Any]:
        """All of it as JSON values, for `restored`."""
        return {
            "rules": {name: dataclasses.asdict(count) for name, count in self.rules.items()},
            "masked": self.masked,
            "mojibake": dict(self.mojibake),
        }

    @classmethod
    def restored(cls, state: dict[str, Any]) -> Drops:
        """From what `state` gave."""
        drops = cls()
        drops.masked, drops.mojibake = state["masked"], Counter(state["mojibake"])
        for name, count in state["rules"].items():
            samples = [(key, sample) for key, sample in count.pop("samples")]
            heapq.heapify(samples)
            drops.rules[name] = RuleCount(**count, samples=samples)
        return drops

    def merge(self, other: Drops) -> None:
        """Take in what became of the documents that come next."""
        self.masked += other.masked
        self.mojibake.update(other.mojibake)
        for name, count in other.rules.items():
            mine = self.rules.setdefault(name, RuleCount())
            mine.documents += count.documents
            mine.lines += count.lines
            mine.bytes += count.bytes
            for key, sample in count.samples:
                _keep(mine, key, sample)

    def write_samples(self, folder: Path) -> None:
        """`dropped.jsonl.zst` in `folder`, where there are samples: rule, reason, source, characters, text."""
        if not self.rules:
            return
        lines = [
            orjson.dumps(sample, option=orjson.OPT_APPEND_NEWLINE)
            for name in self.as_dict()
            for _, sample in sorted(self.rules[name].samples, key=lambda entry: entry[0], reverse=True)
        ]
        (folder / SAMPLES_FILE).write_bytes(zstandard.ZstdCompressor(level=3).compress(b"".join(lines)))

    @staticmethod
    def _sample(count: RuleCount, text: str, about: dict[str, Any]) -> None:
        key = _inverted(document_id(text))
        if len(count.samples) < SAMPLES or key > count.samples[0][0]:
            _keep(count, key, {**about, "text": text[:_SAMPLE_CHARACTERS]})


def _keep(count: RuleCount, key: str, sample: dict[str, Any]) -> None:
    if len(count.samples) >= SAMPLES and key <= count.samples[0][0]:
        return
    if any(key == other for other, _ in count.samples):  # one of a kind is enough
        return
    if len(count.samples) < SAMPLES:
        heapq.heappush(count.samples, (key, sample))
    else:
        heapq.heapreplace(count.samples, (key, sample))


def _inverted(identity: str) -> str:
    return f"{2**64 - 1 - int(identity, 16):016x}"


def read_samples(corpus: Path) -> Iterator[dict[str, Any]]:
    """The samples of a corpus folder, in the order of its rules."""
    path = Path(corpus) / SAMPLES_FILE
    if not path.is_file():
        return
    with zstandard.ZstdDecompressor().stream_reader(path.read_bytes()) as unpacked:
        for line in unpacked.read().splitlines():
            yield orjson.loads(line)
