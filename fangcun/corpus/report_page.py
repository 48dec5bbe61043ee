"""The report of a corpus as text for the terminal, and as one self-contained HTML page with plots."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

_BAR = 32


def as_text(report: dict[str, Any]) -> str:
    """A page for the terminal."""
    train, val = report["splits"]["train"], report["splits"]["val"]
    documents, characters = train["documents"] + val["documents"], train["characters"] + val["characters"]
    lengths = report["lengths"]
    lines = [
        f"{documents:,} documents, {characters:,} characters, {train['bytes'] + val['bytes']:,} bytes from {report['n_sources']:,} files; "
        f"{val['documents']:,} documents and {val['characters']:,} characters for validation",
        f"characters a document: 10 % {lengths['10%']:,}, half {lengths['50%']:,}, 90 % {lengths['90%']:,}, longest {lengths['longest']:,}",
        "",
    ]
    if report["named_sources"]:
        lines += _bars("characters by source", {name: n["characters"] for name, n in report["named_sources"].items()})
    lines += _bars("characters", report["characters"])
    lines += _bars("documents by language", report["languages"])
    if report["left_out"]:
        lines += [
            "",
            "left out: "
            + "; ".join(
                f"{name} {c['documents']:,} documents, {c['bytes']:,} bytes" for name, c in report["left_out"].items()
            ),
        ]
    for title, key in (("in most documents, runs of 8", "runs_of_8"), ("pairs", "pairs")):
        if common := report["common"][key]:
            lines += ["", f"{title}: " + "  ".join(f"{run['text']} {run['documents']:,}" for run in common[:10])]
    return "\n".join(lines)


def as_html(report: dict[str, Any], title: str) -> str:
    """One HTML page: the same, with a histogram of lengths. No script, nothing fetched."""
    histogram = {f"{bin['from']:,}": bin["documents"] for bin in report["lengths"]["histogram"]}
    parts = [
        f"<h1>{html.escape(title)}</h1>", f"<pre>{html.escape(as_text(report).split(chr(10) * 2)[0])}</pre>",
        _chart("Characters a document, from", histogram), _chart("Characters by source", {name: n["characters"] for name, n in report["named_sources"].items()}),
        _chart("Characters by kind", report["characters"]),
        _chart("Documents by language", report["languages"]),
        _chart("Bytes left out, by rule", {name: count["bytes"] for name, count in report["left_out"].items()}),
        _chart("Characters by file", {source["name"]: source["characters"] for source in report["sources"]}),
        _chart("Runs of 8 characters, documents of the sample that have them", {r["text"]: r["documents"] for r in report["common"]["runs_of_8"]}),
        _chart("Pairs of characters, the same", {r["text"]: r["documents"] for r in report["common"]["pairs"]}),
    ]  # fmt: skip
    style = "body{font:15px system-ui,sans-serif;max-width:56em;margin:2em auto;padding:0 1em;color:#222}pre{white-space:pre-wrap}text{font:12px system-ui,sans-serif}"
    return (
        f'<!doctype html><html lang="zh"><meta charset="utf-8"><title>{html.escape(title)}</title><style>{style}</style>'
        + "".join(parts)
        + "</html>\n"
    )


def _bars(title: str, counts: Mapping[str, int]) -> list[str]:
    total, most = max(1, sum(counts.values())), max(counts.values(), default=0)
    width = max((len(name) for name in counts), default=0)
    lines = [title]
    for name, count in counts.items():
        if count:
            bar = "█" * max(1, round(_BAR * count / most))
            lines.append(f"  {name:<{width}}  {count / total:>6.1%}  {bar} {count:,}")
    return lines


def _chart(title: str, counts: Mapping[str, int]) -> str:
    """A bar chart as inline SVG; nothing for nothing."""
    rows = [(name, count) for name, count in counts.items() if count]
    if not rows:
        return ""
    most, height = max(count for _, count in rows), 20
    bars = "".join(
        f'<text x="236" y="{n * height + 14}" text-anchor="end">{html.escape(name[-32:])}</text>'
        f'<rect x="244" y="{n * height + 3}" width="{max(1.0, 380 * count / most):.1f}" height="14" fill="#4a7ebb"/>'
        f'<text x="{250 + 380 * count / most:.1f}" y="{n * height + 14}">{count:,}</text>'
        for n, (name, count) in enumerate(rows)
    )
    size = len(rows) * height + 4
    return f'<h2>{html.escape(title)}</h2><svg viewBox="0 0 720 {size}" width="720" height="{size}" role="img">{bars}</svg>'
