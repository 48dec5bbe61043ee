"""Promises of near-duplicate search: estimates are true, copies go, others stay, the order decides nothing."""

from __future__ import annotations

import functools
import pickle
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fangcun.corpus.dedup import EXACT, NEAR, Copies, Duplicates, Folding, folding, sketch, spool
from fangcun.corpus.dedup import sketches as sketches_module
from fangcun.corpus.documents import document_id, split_text
from fangcun.errors import FangcunError
from fangcun.processes import ordered_map

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


@settings(max_examples=8, deadline=None)
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


def test_worker_processes_decide_nothing() -> None:
    texts = mixed_corpus()
    batches = [texts[start : start + 90] for start in range(0, len(texts), 90)]
    parts = list(ordered_map(functools.partial(sketch, folding=FOLDING), batches, 2, int))
    whole = sketch(texts, FOLDING)
    assert (np.concatenate([part.signatures for part in parts]) == whole.signatures).all()
    assert (np.concatenate([part.exact for part in parts]) == whole.exact).all()


def slow_signature(text: str) -> list[int]:
    """The definition, a set and a loop."""
    folded = [ord(character) for character in FOLDING.folded_text(text)]
    hashes = {
        int(sketches_module.shingle_hashes(np.array(folded[at : at + 5], np.uint32))[0])
        for at in range(len(folded) - 4)
    }
    minima: dict[int, int] = {}
    for value in hashes:
        minima[value >> 56] = min(minima.get(value >> 56, 2**32), value % 2**32)
    if not minima:
        return [0] * 256
    order = sketches_module._borrowing_order()
    lenders = [place if place in minima else next(b for b in order[:, place] if b in minima) for place in range(256)]
    return [minima[int(lender)] % 2**16 for lender in lenders]


@pytest.mark.parametrize("characters", [5, 6, 40, 150, 900])
def test_a_signature_is_what_the_definition_says(characters: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sketches_module, "_BLOCK", 37)  # grams across the ends of blocks are seen too
    draw = random.Random(characters)
    texts = [prose(draw, characters), "，".join(prose(draw, characters)), "ab", prose(draw, characters)]
    for text, signature in zip(texts, sketch(texts, FOLDING).signatures.tolist(), strict=True):
        assert signature == slow_signature(text)


@settings(max_examples=200, deadline=None)
@given(text=st.text())
def test_marks_spaces_width_and_case_do_not_count(text: str) -> None:
    dressed = (
        " 。\n".join(text.upper() if text.isascii() else text).replace("a", "ａ").replace("1", "１") + "！…—“”😀\u200b"
    )
    assert FOLDING.folded_text(dressed) == FOLDING.folded_text(text)
    characters, places = FOLDING.fold_one(text)
    assert FOLDING.folded_text("".join(text[place] for place in places)) == FOLDING.folded_text(text)
    together, starts = FOLDING.fold([text, "甲", text])
    assert together[starts[0] : starts[1]].tolist() == characters.tolist() == together[starts[2] : starts[3]].tolist()


def test_what_looks_the_same_is_the_same() -> None:
    assert FOLDING.folded_text("⼀⾔ ＡＢｃ～１２，ﾊﾟ❤️葛󠄀") == "一言abc12パ葛"


def test_signs_of_mathematics_count() -> None:
    assert len({FOLDING.folded_text(text) for text in ("1+1", "1=1", "11", "1<1", "1×1", "￥11")}) == 6


def test_traditional_copies_are_found_when_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("opencc", reason="opencc is not installed")
    texts = [
        "话说天下大势，分久必合，合久必分。周末七国分争，并入于秦。",
        "話說天下大勢，分久必合，合久必分。周末七國分爭，並入於秦。",
    ]
    both = pickle.loads(pickle.dumps(Folding(traditional=True)))
    assert both.folded_text(texts[1]) == FOLDING.folded_text(texts[0])
    assert sorted(find(tmp_path / "folded", texts, folding=both).kind) == [0, EXACT]
    assert sorted(find(tmp_path / "plain", texts).kind) == [0, 0]
    assert both.fingerprint != FOLDING.fingerprint


def test_the_table_that_comes_along_is_that_of_opencc() -> None:
    opencc = pytest.importorskip("opencc")
    old, new = folding._simplified()
    convert = opencc.OpenCC("t2s").convert
    agree = sum(convert(chr(a)) == chr(b) for a, b in zip(old.tolist(), new.tolist(), strict=True))
    assert len(old) > 2500 and agree > 0.99 * len(old)  # another version knows a few other pairs


def test_nothing_is_dropped_from_different_texts(tmp_path: Path) -> None:
    draw = random.Random(5)
    texts = [prose(draw, draw.randint(1, 400)) for _ in range(1500)]
    copies = find(tmp_path / "spool", list(dict.fromkeys(texts)))
    assert (copies.copy_of == -1).all() and not copies.kind.any() and not copies.similarity.any()


def test_the_longest_of_a_group_stays_and_chains_do_not_swallow_what_differs(tmp_path: Path) -> None:
    draw = random.Random(6)
    chain = [prose(draw, 3000)]
    for _ in range(6):  # each like the one before, a little shorter; the last unlike the first
        chain.append(chain[-1][300:-30] + prose(draw, 300))
    copies = find(tmp_path / "spool", chain)
    assert copies.copy_of[0] == -1 and 1 < (copies.copy_of == -1).sum() < len(chain)
    for number, keeper in enumerate(copies.copy_of):
        if keeper >= 0:
            assert jaccard(chain[number], chain[keeper]) > 0.65


def test_exact_only_finds_exact_copies_only(tmp_path: Path) -> None:
    text = prose(random.Random(7), 500)
    texts = [text, text + "。", text[:-1]]
    assert sorted(find(tmp_path / "spool", texts, near=False).kind) == [0, 0, EXACT]
    assert sorted(find(tmp_path / "other", texts).kind) == [0, EXACT, NEAR]


def test_a_killed_run_goes_on_after_its_whole_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "BLOCK_DOCUMENTS", 50)
    monkeypatch.setattr(spool, "_BLOCK_BYTES", {name: size // 4096 * 50 for name, size in spool._BLOCK_BYTES.items()})
    texts = mixed_corpus()
    ids = [document_id(text) for text in texts]
    whole = find(tmp_path / "whole", texts, batch=7)
    with Duplicates(tmp_path / "spool", folding=FOLDING.fingerprint) as killed:
        killed.add(sketch(texts[:130], FOLDING), ids[:130])
        killed.find()  # looking in between changes nothing
        killed.add(sketch(texts[130:170], FOLDING), ids[130:170])
        killed.find()
    with open(tmp_path / "spool" / "bands.bin", "ab") as file:
        file.write(b"torn")
    with Duplicates(tmp_path / "spool", folding=FOLDING.fingerprint) as again:
        assert len(again) == 150
        again.add(sketch(texts[150:], FOLDING), ids[150:])
        copies = again.find()
    assert (copies.copy_of == whole.copy_of).all() and (copies.kind == whole.kind).all()
    with pytest.raises(FangcunError, match="made otherwise"):
        Duplicates(tmp_path / "spool", folding="other")


def test_texts_of_marks_alone_are_copies_only_of_themselves(tmp_path: Path) -> None:
    texts = ["。。。", "！", "\ud800", "", "。。。", "天", "天！"]
    assert find_all(tmp_path, texts) == [-1, -1, -1, -1, 0, -1, 5]


def find_all(folder: Path, texts: list[str]) -> list[int]:
    with Duplicates(folder) as duplicates:
        duplicates.add(sketch(texts, FOLDING), [f"{number:x}" for number in range(len(texts))])
        return duplicates.find().copy_of.tolist()


def test_no_documents_and_nonsense(tmp_path: Path) -> None:
    assert len(find(tmp_path / "spool", []).copy_of) == 0
    with pytest.raises(FangcunError, match=r"0\.3 to 1"):
        Duplicates(tmp_path / "other", threshold=0)


def test_the_web_copy_of_a_novel_is_found_whole_and_by_chapters(tmp_path: Path, shared_data: Path) -> None:
    clean, copy = (
        (shared_data / "novels" / f"sanguoyanyi{end}.txt").read_text(encoding="utf-8") for end in ("", "_webcopy")
    )
    assert sorted(find(tmp_path / "whole", [clean, copy]).kind) == [0, NEAR]
    chapters = [[text for _, text in split_text([text], "chapter", None, None)] for text in (clean, copy)]
    copies = find(tmp_path / "chapters", [*chapters[0], *chapters[1]])
    assert (copies.copy_of >= 0).sum() == 120 == len(chapters[0])
    for number in np.flatnonzero(copies.copy_of >= 0):
        assert (number < 120) != (copies.copy_of[number] < 120)
