"""Windows of a file hold each document once, in order, and count what is broken once, whatever the format."""

from __future__ import annotations

import bz2
import csv
import itertools
import json
import random
from pathlib import Path

import pytest

from fangcun.config import CorpusConfig
from fangcun.corpus import streams
from fangcun.corpus.readers import read_raw
from fangcun.corpus.report import ReadReport
from fangcun.corpus.sources import Part, Source


def texts() -> list[str]:
    draw = random.Random(5)
    return [
        f"第{n}篇" + "".join(chr(draw.randrange(0x4E00, 0x5E00)) for _ in range(draw.randrange(3, 90)))
        for n in range(120)
    ]


def write(folder: Path, kind: str) -> Path:
    path = folder / f"a.{kind}"
    if kind == "parquet":
        pa = pytest.importorskip("pyarrow")
        pq = pytest.importorskip("pyarrow.parquet")
        pq.write_table(pa.table({"text": texts()}), path, row_group_size=10)
    elif kind == "csv":
        with open(path, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["text", "n"], *([text, "1"] for text in texts())])
    elif kind == "json":
        path.write_text(json.dumps([{"text": text} for text in texts()], ensure_ascii=False), encoding="utf-8")
    elif kind == "txt":
        path.write_bytes("\n\n".join(texts()).encode("gb18030") + b"\xff\xff\n\nend")
    else:
        lines = [json.dumps({"text": text}, ensure_ascii=False).encode() for text in texts()]
        broken = b"\n".join(line if number % 17 else line + b"\n{broken\n\xff" for number, line in enumerate(lines))
        path.write_bytes(bz2.compress(broken) if kind.endswith("bz2") else broken)
    return path


def read(source: Source) -> tuple[list[tuple[str, str]], ReadReport]:
    report = ReadReport()
    documents = []
    for document in read_raw(source, report):
        document.counts.documents += 1
        documents.append((document.place, document.text))
    return documents, report


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.bz2", "json", "csv", "txt", "parquet"])
@pytest.mark.parametrize("windows", [2, 7])
def test_windows_read_what_the_whole_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, windows: int
) -> None:
    monkeypatch.setattr(streams, "_BLOCK_BYTES", 700)
    monkeypatch.setattr(streams, "_PACKED_BLOCK_BYTES", 300)
    path = write(tmp_path, kind)
    encoding = "gb18030" if kind == "txt" else "utf-8"  # not auto, which reads so small a file to its end first
    config = CorpusConfig(paths=[str(path)], max_broken_share=1.0, txt_split="blank_lines", encoding=encoding)
    whole = Source(config)
    size = path.stat().st_size
    bounds = [size * number // windows for number in range(windows)] + [size + 1]
    documents, merged = [], ReadReport()
    sizes = []
    for start, stop in itertools.pairwise(bounds):
        some, report = read(whole.part(Part(0, 1, (start, stop))))
        documents += some
        sizes.append(len(some))
        merged.merge(report)
    expected, report = read(whole)
    assert documents == expected and len(expected) >= 120
    assert merged.state() == report.state()
    assert sum(size > 0 for size in sizes) > 1 or kind == "jsonl.bz2"  # which is unpacked in large blocks
