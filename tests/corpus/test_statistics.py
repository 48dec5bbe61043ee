"""The report of a corpus: its counts are those of the text."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_drops import build, records, write
from tiny import fangcun

from fangcun.corpus import iter_split
from fangcun.corpus.statistics import common_runs, corpus_statistics


def test_the_counts_are_those_of_the_documents(tmp_path: Path) -> None:
    build(write(tmp_path / "in", records()), tmp_path / "corpus")
    texts = [d.text for split in ("train", "val") for d in iter_split(tmp_path / "corpus", split)]
    report = corpus_statistics(tmp_path / "corpus")
    assert report["characters"]["hanzi"] == sum(len(re.findall("[\u4e00-\u9fff]", text)) for text in texts)
    assert report["characters"]["digits"] == sum(len(re.findall("[0-9]", text)) for text in texts)
    assert sum(report["characters"].values()) == sum(map(len, texts))
    assert report["languages"] == {"zh": len(texts)}
    assert report["lengths"]["longest"] == max(map(len, texts))
    assert sum(bin["documents"] for bin in report["lengths"]["histogram"]) == len(texts)
    assert report["left_out"]["min_characters"]["documents"] == 30
    assert report["common"]["runs_of_8"][0]["documents"] == len(texts)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.sampled_from("天地玄黄 \n"), max_size=12), max_size=12))
def test_common_runs_are_those_of_a_plain_count(texts: list[str]) -> None:
    counts: Counter[str] = Counter()
    for text in texts:
        bare = "".join(text.split())
        counts.update({bare[start : start + 2] for start in range(len(bare) - 1)})
    expected = {run: count for run, count in counts.items() if count > 1}
    found = {run["text"]: run["documents"] for run in common_runs(texts, 1)}
    assert found.items() <= expected.items()
    assert sorted(found.values(), reverse=True) == sorted(expected.values(), reverse=True)[:20]


def test_the_report_is_printed_and_written(tmp_path: Path) -> None:
    build(write(tmp_path / "in", records()), tmp_path / "corpus")
    page, data = tmp_path / "report.html", tmp_path / "report.json"
    done = fangcun("corpus", "report", str(tmp_path / "corpus"), "--json", str(data), "--html", str(page))
    assert done.returncode == 0, done.stderr
    assert "hanzi" in done.stdout and "left out: " in done.stdout
    assert json.loads(data.read_text(encoding="utf-8"))["languages"]
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg") >= 5 and "http" not in text and "<script" not in text


@pytest.mark.parametrize(
    ("words", "message"), [([], "Name a run"), (["nowhere"], "no corpus"), (["x", "--jsn", "y"], "Did you mean 'json'")]
)
def test_a_wrong_command_is_one_sentence(words: list[str], message: str) -> None:
    done = fangcun("corpus", "report", *words)
    assert done.returncode != 0
    assert message in done.stderr and done.stderr.count("\n") == 1
