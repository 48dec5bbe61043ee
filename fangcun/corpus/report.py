"""What reading found: encodings, skipped files, and every broken place counted, with a sample of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fangcun.errors import FangcunError

MAX_SAMPLES = 20
_EXCERPT_CHARACTERS = 120


@dataclass
class FileReport:
    """Counts of one input file. `bytes` are those after decompression, `broken_bytes` a part of them."""

    name: str
    encoding: str = ""
    bytes: int = 0
    documents: int = 0
    empty_documents: int = 0
    broken_records: int = 0
    broken_bytes: int = 0


@dataclass
class ReadReport:
    """Counts of a whole corpus and the first broken places."""

    files: list[FileReport] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    samples: list[dict[str, str]] = field(default_factory=list)
    """Up to 20 of {"place", "reason", "excerpt"}, in reading order."""

    def total(self, name: str) -> int:
        """Sum of one count over all files."""
        return sum(getattr(file, name) for file in self.files)

    def broken_record(self, file: FileReport, place: str, reason: str, excerpt: str = "", size_bytes: int = 0) -> None:
        """Count a record that could not be used; `place` is path:line."""
        file.broken_records += 1
        file.broken_bytes += size_bytes
        self._sample(place, reason, excerpt)

    def bad_bytes(self, file: FileReport, line: int, count: int) -> None:
        """Count bytes that do not decode (or are NUL) and were left out."""
        file.broken_bytes += count
        place = f"{file.name}:{line}"
        # One sample a line says enough.
        if len(self.samples) < MAX_SAMPLES and not (self.samples and self.samples[-1]["place"] == place):
            self._sample(place, f"{count} byte{'s' if count > 1 else ''} not valid {file.encoding or 'text'}", "")

    def _sample(self, place: str, reason: str, excerpt: str) -> None:
        if len(self.samples) < MAX_SAMPLES:
            self.samples.append({"place": place, "reason": reason, "excerpt": excerpt[:_EXCERPT_CHARACTERS]})

    def first_places(self, count: int = 3) -> str:
        """The first broken places in one line."""
        return "; ".join(f"{sample['place']}: {sample['reason']}" for sample in self.samples[:count])

    def check(self, max_broken_share: float) -> None:
        """Raise FangcunError when more than `max_broken_share` of the documents or of the bytes are broken."""
        broken, good = self.total("broken_records"), self.total("documents") + self.total("empty_documents")
        for what, bad, total in (
            ("records", broken, broken + good),
            ("bytes", self.total("broken_bytes"), self.total("bytes")),
        ):
            if total and bad / total > max_broken_share:
                raise FangcunError(
                    f"The corpus has {bad:,} broken {what} of {total:,} ({bad / total:.1%}, allowed {max_broken_share:.1%}). First: {self.first_places()}. "
                    "Repair or leave out these files, or allow more with --corpus.max_broken_share."
                )

    def as_dict(self) -> dict[str, Any]:
        """The content of drops.json."""
        names = ("documents", "empty_documents", "broken_records", "bytes", "broken_bytes")
        return {
            **{name: self.total(name) for name in names},
            "samples": self.samples,
            "files": [vars(file) for file in self.files],
            "skipped": self.skipped,
        }


def describe_drops(report: dict[str, Any]) -> list[str]:
    """The content of drops.json in a few lines for people: skipped files, other encodings, broken places."""
    lines = []
    if skipped := report["skipped"]:
        lines.append(f"skipped: {_few(skipped)}")
    plain = ("", "ascii", "utf-8", "parquet")
    others = [f"{file['name']} ({file['encoding']})" for file in report["files"] if file["encoding"] not in plain]
    if others:
        lines.append(f"not plain UTF-8: {_few(others)}")
    if report["broken_records"] or report["broken_bytes"]:
        places = "; ".join(f"{sample['place']}: {sample['reason']}" for sample in report["samples"][:3])
        lines.append(f"broken: {report['broken_records']:,} records, {report['broken_bytes']:,} bytes. First: {places}")
    if rules := report.get("rules"):
        shown = [f"{name} {_count(count)}" for name, count in rules.items()]
        lines.append(f"left out: {'; '.join(shown)}")
    if report.get("masked"):
        lines.append(f"masked: {report['masked']:,} personal data")
    return lines


def _count(count: dict[str, int]) -> str:
    what = f"{count['lines']:,} lines of {count['documents']:,}" if count["lines"] else f"{count['documents']:,}"
    return f"{what} documents, {count['bytes'] / 1e6:,.2f} MB"


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more (see corpus/drops.json)" if len(names) > 3 else "")
