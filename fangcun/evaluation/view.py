"""Results side by side for people: aligned columns, hanzi counted as two, figures with their intervals and words."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

SOURCES = 20
"""Sources that the table of a text shows."""


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells, the first column to the left, the others to the right; the first row is the heading."""
    widths = [max(_columns(row[at]) for row in rows if at < len(row)) for at in range(max(map(len, rows)))]
    lines = []
    for row in rows:
        first, *rest = row
        cells = [first + " " * (widths[0] - _columns(first))]
        cells += [" " * (width - _columns(cell)) + cell for cell, width in zip(rest, widths[1:], strict=False)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def text_table(names: Sequence[str], records: Sequence[dict[str, Any]]) -> str:
    """Bits per byte of a text: a row a source and a script, a column a model. The records are those of the JSON file."""
    first = records[0]
    rows = [["bits per byte", *names], ["all", *(_bits(record["total"]) for record in records)]]
    shown = list(first["sources"])[:SOURCES] if len(first["sources"]) > 1 else []
    rows += [[f"  {name}", *(_bits(record["sources"][name]) for record in records)] for name in shown]
    if len(shown) == SOURCES < len(first["sources"]):
        rows.append([f"  … {len(first['sources']) - SOURCES:,} more (--json has them)"])
    for script in ("han", "latin", "other"):
        if any(script in record["total"]["scripts"] for record in records):
            rows.append([f"  {script}", *(_bits(record["total"]["scripts"].get(script)) for record in records)])
    rows += [
        ["tokens", *(f"{record['total']['tokens']:,}" for record in records)],
        ["bytes/token", *(_number(record["total"]["bytes_per_token"]) for record in records)],
    ]
    total = first["total"]
    notes = [
        f"{total['documents']:,} documents, {total['bytes']:,} bytes; windows of block_size, stride "
        + ", ".join(sorted({f"{record['stride']:,}" for record in records}))
    ]
    if not all(record["total"]["comparable"] for record in records):
        notes.append(
            "* the tokenizer does not give the text back (<unk>, normalising): not comparable with other models"
        )
    return table(rows) + "\n" + "\n".join(notes)


def _bits(record: dict[str, Any] | None) -> str:
    if record is None or record.get("bits_per_byte") is None:
        return "–"
    return f"{record['bits_per_byte']:.4f}" + ("" if record.get("comparable", True) else "*")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def exam_table(names: Sequence[str], records: Sequence[dict[str, Any]], *, subjects: bool = False) -> str:
    """Accuracies of one exam: total, categories and, where wanted, subjects; a column a model."""
    first = records[0]
    ways = [way for way in ("letter", "raw", "by_bytes") if way in first]
    blocks = []
    for way in ways:
        found = [record[way] for record in records]
        label = {"letter": "letter form", "raw": "cloze form", "by_bytes": "cloze form, by bytes"}[way]
        rows = [[f"{first['exam']}, {label}, {first['shots']}-shot", *names]]
        rows.append(["all questions", *(_share(one["accuracy"]) for one in found)])
        rows.append(["  95 % interval", *("–".join(_share(end) for end in one["interval_95"]) for one in found)])
        rows.append([f"  guessing {_share(found[0]['chance'])}", *(one["verdict"] for one in found)])
        rows.append(["mean of subjects", *(_share(one["macro_accuracy"]) for one in found)])
        for part in ["categories", *(["subjects"] if subjects else [])]:
            for name in found[0][part]:
                cells = [one[part][name] for one in found]
                rows.append([f"  {name}", *(_share(c["accuracy"]) + _mark(c["verdict"]) for c in cells)])
        blocks.append(table(rows))
    questions = first[ways[0]]["questions"]
    notes = [
        f"{questions:,} questions, {len(first[ways[0]]['subjects'])} subjects, prompts of {first['prompt']}. "
        "+ above chance, - below, others not above chance (95 %)"
    ]
    for name, record in zip(names, records, strict=True):
        fitting = record["fitting"]
        if fitting["shortened"] or fitting["cut"]:
            notes.append(
                f"{name}: {fitting['shortened']:,} questions with fewer examples, {fitting['dropped_shots']:,} examples left out for "
                f"the context; {fitting['cut']:,} questions do not fit even alone and were cut on the left"
            )
    return "\n\n".join(blocks) + "\n" + "\n".join(notes)


def _share(value: float) -> str:
    return f"{100 * value:.2f} %"


def _mark(verdict: str) -> str:
    return {"above chance": " +", "below chance": " -"}.get(verdict, "  ")


def samples_table(names: Sequence[str], records: Sequence[dict[str, Any]]) -> str:
    """Repetition and length of free samples; a column a model."""
    labels = {
        "samples": "samples",
        "distinct_1": "distinct-1",
        "distinct_2": "distinct-2",
        "distinct_3": "distinct-3",
        "distinct_4": "distinct-4",
        "loop_share": "share that loops",
        "longest_loop_characters": "longest loop, characters",
        "mean_characters": "mean length, characters",
        "ended_share": "share that ended by itself",
    }
    rows = [["free samples", *names]]
    for key, label in labels.items():
        rows.append([label, *(_figure(key, record.get(key)) for record in records)])
    return table(rows)


def _figure(key: str, value: float | None) -> str:
    if value is None:
        return "–"
    if key.endswith("_share"):
        return f"{value:.0%}"
    if key.startswith("distinct"):
        return f"{value:.3f}"
    return f"{value:,.0f}"


def harness_table(names: Sequence[str], records: Sequence[dict[str, Any]]) -> str:
    """What lm-eval found: a row a task and figure, a column a model."""
    rows = [["lm-eval", *names]]
    for task, figures in records[0]["results"].items():
        for key, value in figures.items():
            if isinstance(value, float) and "stderr" not in key:
                cells = [record["results"][task].get(key) for record in records]
                rows.append([f"{task} {key.split(',')[0]}", *(_plain(cell) for cell in cells)])
    return table(rows)


def _plain(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "–"


def validation_table(names: Sequence[str], records: Sequence[dict[str, Any]]) -> str:
    """Loss and bits per byte of each model's own validation split. Different runs may have different ones."""
    splits = list(dict.fromkeys(name for record in records for name in record["splits"]))
    rows = [["validation split", *names]]
    for split in splits:
        found = [record["splits"].get(split) for record in records]
        rows.append([f"{split}, loss", *(_plain(one and one["loss"]) for one in found)])
        rows.append([f"{split}, bits per byte", *(_bits(one) for one in found)])
    rows.append(["tokens", *(f"{record['splits']['validation']['n_tokens']:,}" for record in records)])
    return table(rows)
