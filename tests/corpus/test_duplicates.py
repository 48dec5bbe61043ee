"""Promises of near-duplicate search: estimates are true, copies go, others stay, the order decides nothing."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fangcun.corpus.dedup import EXACT, NEAR, Copies, Duplicates, Folding, sketch
from fangcun.corpus.documents import document_id

FOLDING = Folding()


def prose(draw: random.Random, characters: int) -> str:
    """Text without repetition: characters drawn from two thousand."""
    return "".join(chr(0x4E00 + draw.randrange(2000)) for _ in range(characters))


def edited(draw: random.Random, text: str, share: float) -> str:
    """A share of the characters replaced, in runs of about ten, and commas strewn in."""
    letters = list(text)
    for _ in range(round(len(text) * share / 10)):
        at = draw.randrange(len(text))
        letters[at : at + 10] = prose(draw, 10)
    for _ in range(5):
        letters.insert(draw.randrange(len(letters)), "， ")
    return "".join(letters)


def shingles(text: str, folding: Folding = FOLDING) -> set[str]:
    folded = folding.folded_text(text)
    return {folded[at : at + 5] for at in range(len(folded) - 4)}


def jaccard(one: str, other: str, folding: Folding = FOLDING) -> float:
    a, b = shingles(one, folding), shingles(other, folding)
    return len(a & b) / max(1, len(a | b))


def find(
    folder: Path, texts: Sequence[str], *, batch: int = 1000, folding: Folding = FOLDING, near: bool = True
) -> Copies:
    with Duplicates(folder, folding=folding.fingerprint) as duplicates:
        for start in range(0, len(texts), batch):
            part = texts[start : start + batch]
            duplicates.add(sketch(part, folding), [document_id(text) for text in part])
        return duplicates.find(near=near)


def kept_texts(texts: Sequence[str], copies: Copies) -> set[str]:
    return {text for text, kept in zip(texts, copies.copy_of < 0, strict=True) if kept}


def mixed_corpus(seed: int = 0) -> list[str]:
    """Originals of many lengths, copies of copies, exact copies, and texts with little or nothing in them."""
    draw = random.Random(seed)
    texts = [prose(draw, draw.choice([4, 6, 20, 60, 300, 2000])) for _ in range(150)]
    for share in (0.02, 0.05, 0.1, 0.3):
        texts += [edited(draw, draw.choice(texts), share) for _ in range(30)]
    texts += [text + "。" for text in draw.sample(texts, 20)] + [
        "",
        "。",
        "，",
        "哈哈哈哈哈哈",
        "哈哈哈哈哈哈哈哈",
        "abc",
        "ＡＢＣ",
    ]
    draw.shuffle(texts)
    return list(dict.fromkeys(texts))


@pytest.mark.parametrize("characters", [30, 200, 700, 5000])
def test_the_estimate_is_near_the_true_similarity(characters: int) -> None:
    draw = random.Random(characters)
    deviations = []
    for _ in range(60):
        text = prose(draw, characters)
        other = edited(draw, text, draw.choice([0.05, 0.1, 0.2, 0.4]))
        signatures = sketch([text, other], FOLDING).signatures
        true = jaccard(text, other)
        error = float((signatures[0] == signatures[1]).mean()) - true
        deviations.append(error / (max(true * (1 - true), 0.02) / signatures.shape[1]) ** 0.5)
    assert abs(np.mean(deviations)) < 0.45  # no bias: 3.5 standard errors of a mean of sixty
    assert np.sqrt(np.mean(np.square(deviations))) < 1.35


def test_copies_go_and_others_stay(tmp_path: Path) -> None:
    texts = mixed_corpus()
    copies = find(tmp_path / "spool", texts)
    gone = np.flatnonzero(copies.copy_of >= 0)
    assert set(copies.kind[gone]) == {EXACT, NEAR}
    for number in gone:
        keeper = copies.copy_of[number]
        assert copies.copy_of[keeper] == -1
        if copies.kind[number] == EXACT:
            assert FOLDING.folded_text(texts[number]) == FOLDING.folded_text(texts[keeper])
        else:
            assert jaccard(texts[number], texts[keeper]) > 0.65
            assert len(FOLDING.folded_text(texts[number])) <= len(FOLDING.folded_text(texts[keeper]))
    left = [shingles(text) for text, kept in zip(texts, copies.copy_of < 0, strict=True) if kept]
    assert not [1 for at, one in enumerate(left) for other in left[:at] if len(one & other) > 0.85 * len(one | other)]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), batch=st.integers(1, 300))
def test_order_and_batches_decide_nothing(tmp_path_factory: pytest.TempPathFactory, seed: int, batch: int) -> None:
    texts = mixed_corpus()
    shuffled = random.Random(seed).sample(texts, len(texts))
    one = find(tmp_path_factory.mktemp("one"), texts)
    other = find(tmp_path_factory.mktemp("other"), shuffled, batch=batch)
    of = {text: texts[keeper] if keeper >= 0 else None for text, keeper in zip(texts, one.copy_of, strict=True)}
    assert {t: shuffled[k] if k >= 0 else None for t, k in zip(shuffled, other.copy_of, strict=True)} == of


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(st.text(max_size=12) | st.text("天地 ，。Ａa", max_size=30), max_size=12))
def test_a_sketch_is_the_same_whatever_stands_beside_it(texts: list[str]) -> None:
    together = sketch(texts, FOLDING)
    for number, text in enumerate(texts):
        alone = sketch([text], FOLDING)
        assert (alone.signatures[0] == together.signatures[number]).all()
        assert alone.exact[0] == together.exact[number] and alone.lengths[0] == together.lengths[number]
