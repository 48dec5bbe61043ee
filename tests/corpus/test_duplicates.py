"""Promises of duplicate detection: copies are found, distinct texts stay, and the result depends on the texts alone."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fangcun.corpus.documents import document_id
from fangcun.corpus.duplicates import EXACT, NEAR, Duplicates, features
from fangcun.corpus.minhash import comparable, shingles, signature, similarity


def hanzi(draw: random.Random, count: int) -> str:
    return "".join(chr(draw.randint(0x4E00, 0x62FF)) + ("，" if draw.random() < 0.1 else "") for _ in range(count))


def edit(draw: random.Random, text: str, share: float) -> str:
    out = list(text)
    for place in draw.sample(range(len(out)), int(len(out) * share)):
        out[place] = draw.choice([chr(draw.randint(0x4E00, 0x62FF)), "", out[place] + "新"])
    return "".join(out)


def jaccard(a: str, b: str) -> float:
    left, right = (set(shingles(comparable(text)).tolist()) for text in (a, b))
    return len(left & right) / max(1, len(left | right))


def find(folder: Path, texts: list[str], threshold: float | None = 0.75) -> tuple[np.ndarray, np.ndarray]:
    duplicates = Duplicates(folder / "signatures", threshold)
    for text in texts:
        duplicates.add(features(text, threshold is not None), document_id(text))
    result = duplicates.find()
    duplicates.close()
    assert not (folder / "signatures").exists()
    return result


@pytest.mark.parametrize(("length", "close"), [(30, 0.13), (200, 0.1), (3000, 0.11)])
def test_the_estimate_is_the_true_similarity_within_four_standard_errors(length: int, close: float) -> None:
    draw = random.Random(length)
    for share in (0.0, 0.01, 0.03, 0.1, 0.3):
        text = hanzi(draw, length)
        other = edit(draw, text, share)
        estimate = similarity(*(signature(shingles(comparable(t))) for t in (text, other)))
        assert float(estimate) == pytest.approx(jaccard(text, other), abs=close)


def test_copies_that_differ_in_punctuation_width_case_or_script_are_exact(tmp_path: Path) -> None:
    texts = [
        "却说曹操，引军攻呂布；ABC 123。" * 3,
        "却说曹操引军攻吕布ＡＢＣ１２３ " * 3,
        "却說曹操 引軍攻呂布！abc123" * 3,
        "却说曹操引军攻刘备" * 3,
    ]
    kept, kinds = find(tmp_path, texts, None)
    assert sorted(kept.tolist()) == sorted([-1, -1] + [int(np.flatnonzero(kept[:3] == -1)[0])] * 2)
    assert kept[3] == -1
    assert sorted(kinds[:3].tolist()) == [0, EXACT, EXACT]


def test_edited_copies_are_found_and_distinct_texts_stay(tmp_path: Path) -> None:
    draw = random.Random(1)
    originals = [hanzi(draw, draw.randint(40, 1500)) for _ in range(400)]
    copies = [(n, edit(draw, originals[n], draw.choice([0.01, 0.02, 0.03]))) for n in range(0, 400, 2)]
    kept, kinds = find(tmp_path, originals + [copy for _, copy in copies], 0.74)
    alike = [(n, 400 + place) for place, (n, copy) in enumerate(copies) if jaccard(originals[n], copy) >= 0.8]
    missed = [pair for pair in alike if kept[pair[0]] < 0 and kept[pair[1]] < 0]
    assert len(alike) > 100
    assert len(missed) <= 0.02 * len(alike)
    assert (kept[1:400:2] == -1).all(), "a text without a copy stays"
    dropped = np.flatnonzero(kept >= 0)
    assert (kept[kept[dropped]] == -1).all(), "every dropped document has a kept partner"
    assert set(kinds[dropped].tolist()) <= {EXACT, NEAR}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_the_result_does_not_depend_on_the_order(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    draw = random.Random(seed)
    texts = [hanzi(draw, draw.randint(1, 120)) for _ in range(20)]
    texts += [edit(draw, text, 0.02) for text in texts[::3]] + texts[::5] + ["", "，。", "一"]
    shuffled = texts[:]
    draw.shuffle(shuffled)
    folder = tmp_path_factory.mktemp("order")
    survivors = [
        sorted(text for text, number in zip(order, find(folder, order)[0], strict=True) if number < 0)
        for order in (texts, shuffled)
    ]
    assert survivors[0] == survivors[1]


def test_the_longest_of_a_group_is_kept(tmp_path: Path) -> None:
    text = hanzi(random.Random(3), 600)
    kept, _ = find(tmp_path, [text[:-20], text, text[:-40]])
    assert kept.tolist() == [1, -1, 1]


def test_texts_without_letters_are_like_no_other(tmp_path: Path) -> None:
    assert find(tmp_path, ["", "……", "！！！", "😀😀"])[0].tolist() == [-1] * 4


def test_nothing_is_found_in_nothing(tmp_path: Path) -> None:
    assert find(tmp_path, [])[0].tolist() == []


def test_the_web_copy_of_a_novel_is_found_whole_and_by_chapters(shared_data: Path, tmp_path: Path) -> None:
    import re

    texts = [
        (shared_data / "novels" / name).read_text(encoding="utf-8")
        for name in ("sanguoyanyi.txt", "sanguoyanyi_webcopy.txt")
    ]
    assert sorted(find(tmp_path, texts)[0].tolist())[0] == -1
    assert max(find(tmp_path, texts)[0]) >= 0
    heading = re.compile(r"^[ \t\u3000]*(?:正文\s*)?(?=第[零〇一二三四五六七八九十百]+回)", re.MULTILINE)
    chapters = [[part for part in heading.split(text) if len(part) > 500] for text in texts]
    assert [len(each) for each in chapters] == [120, 120]
    kept, _ = find(tmp_path, chapters[0] + chapters[1])
    assert (kept >= 0).sum() >= 118
