"""The tokenizer artefact: trained from a corpus or taken over, with a report and a fingerprint."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import pytest
from tokenizer_text import TEXT

from fangcun.artifacts import read_manifest
from fangcun.config.schema import CorpusConfig, TokenizerConfig
from fangcun.corpus import build_corpus
from fangcun.errors import FangcunError
from fangcun.tokenizer import Tokenizer, build_tokenizer, tokenizer_fingerprint
from fangcun.tokenizer.sample import blocks, evenly


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    (folder / "text.txt").write_text(TEXT * 30 + "末尾才有的字：饕餮\n", encoding="utf-8")
    build_corpus(CorpusConfig(paths=[str(folder / "text.txt")], val_split="tail"), folder / "corpus")
    return folder / "corpus"


def test_bpe_is_trained_and_reported(corpus: Path, tmp_path: Path) -> None:
    config = TokenizerConfig(vocab_size=400)
    seen: list[tuple[int, int]] = []
    manifest = build_tokenizer(config, corpus, tmp_path / "t", lambda done, total: seen.append((done, total)))
    assert manifest.counts["vocab_size"] == Tokenizer.load(tmp_path / "t").vocab_size == 400
    assert read_manifest(tmp_path / "t", "tokenizer", verify=True).parents == {
        "corpus": read_manifest(corpus, "corpus").fingerprint
    }
    report = json.loads((tmp_path / "t" / "report.json").read_text(encoding="utf-8"))
    assert report["sample"]["gives_the_text_back"] is True
    assert report["sample"]["unknown_share"] == 0
    assert report["sample"]["characters_per_token"] > 0.5
    assert seen[-1][0] == seen[-1][1] > 0
    assert manifest.fingerprint == tokenizer_fingerprint(config, read_manifest(corpus, "corpus").fingerprint)[0]


def test_characters_of_the_validation_text_are_known(corpus: Path, tmp_path: Path) -> None:
    build_tokenizer(TokenizerConfig(kind="char"), corpus, tmp_path / "t")
    tokenizer = Tokenizer.load(tmp_path / "t")
    assert tokenizer.unk_id not in tokenizer.encode("饕餮")


def test_a_trained_tokenizer_is_taken_over_from_its_run_folder(corpus: Path, tmp_path: Path) -> None:
    build_tokenizer(TokenizerConfig(vocab_size=300), corpus, tmp_path / "run" / "tokenizer")
    for path in (tmp_path / "run", tmp_path / "run" / "tokenizer", tmp_path / "run" / "tokenizer" / "tokenizer.json"):
        build_tokenizer(TokenizerConfig(path=str(path)), None, tmp_path / "again")
        first, again = Tokenizer.load(tmp_path / "run" / "tokenizer"), Tokenizer.load(tmp_path / "again")
        assert again.fingerprint == first.fingerprint
        assert again.chat_template == first.chat_template


def test_the_fingerprint_follows_what_matters_only(tmp_path: Path, bpe: Tokenizer) -> None:
    base = TokenizerConfig()
    of = {name: tokenizer_fingerprint(dataclasses.replace(base, **{name: value}), "c")[0] for name, value in
          {"vocab_size": 999, "max_han_run": 2, "sample_bytes": 5, "kind": "char", "trainer": "tokenizers",
           "gb2312": True}.items()}  # fmt: skip
    assert len({*of.values(), tokenizer_fingerprint(base, "c")[0], tokenizer_fingerprint(base, "d")[0]}) == 8
    library = dataclasses.replace(base, trainer="tokenizers")
    assert tokenizer_fingerprint(dataclasses.replace(library, gb2312=False), "c")[0] == of["trainer"]
    characters = dataclasses.replace(base, kind="char")
    assert tokenizer_fingerprint(dataclasses.replace(characters, vocab_size=999), "c")[0] == of["kind"]
    for name in ("one", "two"):
        bpe.save(tmp_path / name)
    one, two = (
        tokenizer_fingerprint(TokenizerConfig(path=str(tmp_path / name), vocab_size=n), str(n))[0]
        for name, n in (("one", 300), ("two", 400))
    )
    assert one == two
    (tmp_path / "two" / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}')
    assert tokenizer_fingerprint(TokenizerConfig(path=str(tmp_path / "two")), "")[0] != one


def test_training_without_a_corpus_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(FangcunError, match=r"--text PATH.*--tokenizer.path"):
        build_tokenizer(TokenizerConfig(), None, tmp_path / "t")


def test_a_sample_is_spread_evenly_and_within_its_limit() -> None:
    texts = [chr(0x4E00 + i) * 20_000 for i in range(50)]
    total = sum(len(text.encode()) for text in texts)
    sample = list(evenly(texts, total, total // 5))
    assert sum(len(block.encode()) for block in sample) <= total // 5 + len(sample[0].encode())
    where = [ord(block[0]) - 0x4E00 for block in sample]
    assert max(b - a for a, b in itertools.pairwise(where)) <= 6
    assert sample == list(evenly(texts, total, total // 5))
    assert "".join(evenly(texts, total, total)) == "".join(texts)


def test_blocks_put_together_are_the_text() -> None:
    text = "一行文字\n" * 700 + "无换行" * 900
    cut = list(blocks(text, 500))
    assert "".join(cut) == text
    assert max(map(len, cut)) <= 500
    assert all(block.endswith("\n") for block in cut[:6])
