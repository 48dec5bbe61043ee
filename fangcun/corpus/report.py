"""What reading found: encodings, skipped files, and every broken place counted, with a sample of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from fangcun.errors import FangcunError

MAX_SAMPLES = 20
# Of more files than this only totals by folder and encoding are kept in drops.json, and the broken ones.
MAX_FILES = 200
_DOUBTFUL = (", uncertain)", ", partly utf-8)")
# Encodings that need no word.
_PLAIN = ("", "ascii", "utf-8", "parquet", "arrow")
_COUNTS = ("documents", "empty_documents", "broken_records", "bytes", "broken_bytes")
_EXCERPT_CHARACTERS = 120


@dataclass(slots=True)
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

    def state(self) -> dict[str, Any]:
        """All of it as JSON values, for `restored`."""
        return asdict(self)

    @classmethod
    def restored(cls, state: dict[str, Any]) -> ReadReport:
        """From what `state` gave."""
        return cls([FileReport(**file) for file in state["files"]], state["skipped"], state["samples"])

    def as_dict(self) -> dict[str, Any]:
        """The content of drops.json. It stays small: of more than 200 files, `files` names the first broken ones, and
        `groups` holds totals by folder and encoding; of more than 200 skipped files `skipped` names the first.
        """
        many = len(self.files) > MAX_FILES
        broken = (file for file in self.files if file.broken_records or file.broken_bytes)
        listed = [file for file, _ in zip(broken, range(MAX_FILES), strict=False)] if many else self.files
        return {
            **{name: self.total(name) for name in _COUNTS},
            "samples": self.samples,
            "files": [asdict(file) for file in listed],
            "groups": _grouped(self.files) if many else [],
            "skipped": self.skipped[:MAX_FILES],
            "skipped_files": len(self.skipped),
        }


def _grouped(files: Iterable[FileReport]) -> list[dict[str, Any]]:
    """Totals by folder and encoding, of the deepest folders of which there are no more than 200."""
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for file in files:
        key = (file.name.rpartition("/")[0], file.encoding)
        total = groups.setdefault(key, dict.fromkeys(("files", *_COUNTS), 0))
        total["files"] += 1
        for name in _COUNTS:
            total[name] += getattr(file, name)
    depth = max(folder.count("/") + 1 if folder else 0 for folder, _ in groups)
    while len(groups) > MAX_FILES and depth > 0:
        depth -= 1
        merged: dict[tuple[str, str], dict[str, Any]] = {}
        for (folder, encoding), counts in groups.items():
            total = merged.setdefault(("/".join(folder.split("/")[:depth]), encoding), dict.fromkeys(counts, 0))
            for name, count in counts.items():
                total[name] += count
        groups = merged
    return [{"folder": folder or ".", "encoding": encoding, **counts} for (folder, encoding), counts in groups.items()]


def describe_drops(report: dict[str, Any]) -> list[str]:
    """The content of drops.json in a few lines for people: skipped files, other encodings, broken places."""
    lines = []
    if skipped := report["skipped"]:
        lines.append(f"skipped: {_few(skipped, report.get('skipped_files', len(skipped)))}")
    others = [
        *(f"{group['files']:,} files in {group['folder']} ({group['encoding']})" for group in _other(report.get("groups", []))),
        *(f"{file['name']} ({file['encoding']})" for file in _other(report["files"]) if not report.get("groups")),
    ]  # fmt: skip
    if others:
        lines.append(f"not plain UTF-8: {_few(others, len(others))}")
    if doubtful := [line for line in others if any(word in line for word in _DOUBTFUL)]:
        lines.append(
            f"encoding uncertain or mixed: {_few(doubtful, len(doubtful))}. Look at the text; name the encoding with --corpus.encoding, or convert the files"
        )
    if report["broken_records"] or report["broken_bytes"]:
        places = "; ".join(f"{sample['place']}: {sample['reason']}" for sample in report["samples"][:3])
        lines.append(f"broken: {report['broken_records']:,} records, {report['broken_bytes']:,} bytes. First: {places}")
    if rules := report.get("rules"):
        shown = [f"{name} {_count(count)}" for name, count in rules.items()]
        lines.append(f"left out: {'; '.join(shown)}")
    if misread := report.get("mojibake", {}).get("documents"):
        counts = ", ".join(f"{kind} {count:,}" for kind, count in misread.items())
        done = "repaired" if report["mojibake"]["repaired"] else "not repaired (--clean.mojibake true does)"
        lines.append(f"read in a wrong encoding before: {counts} documents, {done}")
    if report.get("masked"):
        lines.append(f"masked: {report['masked']:,} personal data")
    return lines


def _count(count: dict[str, int]) -> str:
    what = f"{count['lines']:,} lines of {count['documents']:,}" if count["lines"] else f"{count['documents']:,}"
    return f"{what} documents, {count['bytes'] / 1e6:,.2f} MB"


def _other(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry for entry in entries if entry["encoding"] not in _PLAIN]


def _few(names: list[str], total: int) -> str:
    return ", ".join(names[:3]) + (f" and {total - 3:,} more (see corpus/drops.json)" if total > 3 else "")
