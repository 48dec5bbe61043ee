"""Promises of taking out repeated paragraphs: what and how much goes, and that order and batches decide nothing."""

from __future__ import annotations

import pickle
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fangcun.corpus.dedup import Folding, ParagraphCounter, RepeatedParagraphs
from fangcun.corpus.documents import document_id
from fangcun.errors import FangcunError

FOLDING = Folding()
LINES = ["版权所有，未经许可不得转载。", "免责声明：本文仅代表作者观点。", "版权所有未经许可不得转载", "短句", "", "  ", "却说曹操引军攻吕布于城下。", "話說天下大勢分久必合"]  # fmt: skip
TEXTS = st.lists(st.lists(st.sampled_from(LINES), max_size=7).map("\n".join), max_size=12, unique=True)


def counted(folder: Path, texts: list[str], *, batch: int = 100, **settings: int) -> RepeatedParagraphs:
    counter = ParagraphCounter(folder, FOLDING, **{"min_characters": 8, "min_documents": 3, **settings})
    for start in range(0, len(texts), batch):
        part = texts[start : start + batch]
        counter.count(part, [document_id(text) for text in part])
    return counter.repeated()


def stripped(folder: Path, texts: list[str], **settings: int) -> dict[str, tuple[str, list[str]]]:
    repeated = pickle.loads(pickle.dumps(counted(folder, texts, **settings)))
    return {text: repeated.strip(text, document_id(text)) for text in texts}


def paragraphs(text: str) -> list[str]:
    """The lines that count, folded."""
    return [folded for line in text.split("\n") if len(folded := FOLDING.folded_text(line)) >= 8]


@settings(max_examples=60, deadline=None)
@given(texts=TEXTS)
def test_a_repeated_paragraph_is_left_once_and_nothing_else_goes(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    found = stripped(tmp_path_factory.mktemp("count"), texts)
    documents = Counter(paragraph for text in texts for paragraph in set(paragraphs(text)))
    left = Counter(paragraph for text in texts for paragraph in paragraphs(found[text][0]))
    for paragraph, count in documents.items():
        if count >= 3:
            assert left[paragraph] == 1
            keeper = min((text for text in texts if paragraph in paragraphs(text)), key=document_id)
            assert paragraph in paragraphs(found[keeper][0])
        else:
            assert left[paragraph] == sum(paragraphs(text).count(paragraph) for text in texts)
    for text, (rest, taken) in found.items():
        lines = Counter(line for line in text.split("\n") if line.strip())
        assert lines == Counter(line for line in rest.split("\n") if line.strip()) + Counter(taken)
        assert taken or rest == text


@settings(max_examples=25, deadline=None)
@given(texts=TEXTS, seed=st.integers(0, 1000), batch=st.integers(1, 5))
def test_order_and_batches_decide_nothing(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], seed: int, batch: int
) -> None:
    shuffled = random.Random(seed).sample(texts, len(texts))
    one = stripped(tmp_path_factory.mktemp("one"), texts)
    assert stripped(tmp_path_factory.mktemp("other"), shuffled, batch=batch) == one


def test_blank_lines_do_not_add_up_and_a_text_may_end_empty(tmp_path: Path) -> None:
    footer = "版权所有，未经许可不得转载。"
    texts = [f"第{number}篇\n\n{footer}\n\n尾" for number in range(4)] + [footer]
    found = stripped(tmp_path, texts)
    changed = [rest for text, (rest, taken) in found.items() if taken]
    assert len(changed) == 4
    for rest in changed:
        assert rest == "" or rest.count("\n") == 2


def test_more_records_than_the_buffer_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fangcun.corpus.dedup.paragraphs._BUFFER", 100)
    texts = [f"这是第{number % 700}个段落而且足够长\n篇{number}" for number in range(2000)]
    repeated = counted(tmp_path, texts)
    assert len(repeated) == 600  # 0 to 599 stand in three documents


def test_nonsense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FangcunError, match="at least 1 and 2"):
        ParagraphCounter(tmp_path, FOLDING, min_documents=1)
