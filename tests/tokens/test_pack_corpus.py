"""Promises of packing: nothing dropped, everything counted, the same bytes from any number of processes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from itertools import chain, pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from fangcun.artifacts import read_manifest
from fangcun.config.schema import CorpusConfig, TokenizerConfig, TokensConfig
from fangcun.corpus import build_corpus
from fangcun.errors import ConfigError, FangcunError
from fangcun.tokenizer import Tokenizer, build_tokenizer
from fangcun.tokens import check_tokenizer, open_split, pack, tokens_fingerprint
from fangcun.tokens.pieces import batch_pieces, cut_text

TEXT = "话说天下大势，分久必合，合久必分。\nthe quick brown fox\n\n  jumps over 12 dogs.\n" * 20
TRAIN = [TEXT[i : i + 40 + i % 90] for i in range(60)] + ["", "a <|endoftext|> in the text is text", "𠀀 emoji 🐼"]
MakeCorpus = Callable[..., Path]
MakeTokenizer = Callable[..., Path]
VAL = ["分久必合", "the end\n"]


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def documents_of(folder: Path, split: str) -> list[list[int]]:
    tokens = open_split(folder, split)
    ids = tokens.read(0, tokens.n_tokens).tolist()
    starts = [0, *tokens.document_ends.tolist()]
    return [ids[a:b] for a, b in pairwise(starts)]


def test_every_document_is_there_closed_and_counted(tmp_path: Path, bpe_folder: Path, make_corpus: MakeCorpus) -> None:
    tokenizer = Tokenizer.load(bpe_folder)
    told: list[tuple[int, int]] = []
    manifest = pack(
        make_corpus(TRAIN, VAL), bpe_folder, tmp_path / "t", TokensConfig(), progress=lambda d, t: told.append((d, t))
    )
    for split, texts in (("train", TRAIN), ("val", VAL)):
        documents = documents_of(tmp_path / "t", split)
        assert [d[-1] for d in documents] == [tokenizer.eos_id] * len(texts)
        assert all(tokenizer.eos_id not in d[:-1] for d in documents)
        assert [tokenizer.decode(d) for d in documents] == texts
        n_bytes = [len(text.encode()) for text in texts]
        assert open_split(tmp_path / "t", split).document_bytes.tolist() == n_bytes
        counts = manifest.counts[split]
        assert (counts["documents"], counts["bytes"], counts["unk_tokens"]) == (len(texts), sum(n_bytes), 0)
        assert counts["tokens"] == sum(map(len, documents))
        assert counts["comparable"] is True
    assert manifest.counts["train"]["empty_documents"] == 1
    assert told[-1] == (sum(len(t.encode()) for t in TRAIN + VAL),) * 2
    assert manifest == read_manifest(tmp_path / "t", "tokens", verify=True)


def test_any_number_of_processes_gives_the_same_files(
    tmp_path: Path, bpe_folder: Path, make_corpus: MakeCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sys.modules["fangcun.tokens.pack"], "PIECE_CHARACTERS", 500
    )  # several batches, long documents in pieces
    corpus = make_corpus([*TRAIN, TEXT, *TRAIN, TEXT * 2], VAL)
    folders = []
    for workers in (1, 3):
        folders.append(tmp_path / f"workers-{workers}")
        pack(corpus, bpe_folder, folders[-1], TokensConfig(workers=workers, shard_tokens=700))
    one, three = map(files_of, folders)
    assert one.keys() == three.keys()
    assert one == three
    assert len([name for name in one if name.startswith("train-") and name.endswith(".bin")]) > 2
    assert documents_of(folders[1], "train")[len(TRAIN)][:-1] == Tokenizer.load(bpe_folder).encode(TEXT)


def test_an_empty_validation_split_works(tmp_path: Path, bpe_folder: Path, make_corpus: MakeCorpus) -> None:
    manifest = pack(make_corpus(["a text"]), bpe_folder, tmp_path / "t", TokensConfig(workers=3))
    assert manifest.counts["val"]["tokens"] == manifest.counts["val"]["documents"] == 0
    assert open_split(tmp_path / "t", "val").n_tokens == 0


def test_unknown_characters_make_bits_per_byte_not_comparable(
    tmp_path: Path, make_corpus: MakeCorpus, make_characters: MakeTokenizer
) -> None:
    folder = make_characters("abc ")
    manifest = pack(make_corpus(["abc", "a天b地"], ["a b"]), folder, tmp_path / "t", TokensConfig())
    train, val = manifest.counts["train"], manifest.counts["val"]
    assert train["unk_tokens"] == 2
    assert train["comparable"] is False
    assert "<unk>" in train["not_comparable_because"]
    assert val["comparable"] is True
    assert open_split(tmp_path / "t", "train").not_comparable_because == train["not_comparable_because"]


def test_a_tokenizer_that_loses_text_makes_bits_per_byte_not_comparable(
    tmp_path: Path, make_corpus: MakeCorpus, make_characters: MakeTokenizer
) -> None:
    folder = make_characters("abc ", lowercase=True)
    texts = ["abc"] * 150 + ["aBc"] + ["abc"] * 100
    train = pack(make_corpus(texts), folder, tmp_path / "t", TokensConfig()).counts["train"]
    assert (train["checked"], train["lossy"], train["comparable"]) == (202, 1, False)
    assert "1 of 202" in train["not_comparable_because"]


def test_the_type_on_disk_follows_the_vocabulary_or_is_refused(
    tmp_path: Path, make_corpus: MakeCorpus, make_characters: MakeTokenizer
) -> None:
    corpus = make_corpus(["ab"])
    large = make_characters("ab" + "".join(map(chr, range(0x10000, 0x1FFFF))))
    assert pack(corpus, large, tmp_path / "a", TokensConfig()).settings["dtype"] == "uint32"
    with pytest.raises(ConfigError, match=r"tokens\.dtype.*65,536.*uint32"):
        pack(corpus, large, tmp_path / "b", TokensConfig(dtype="uint16"))
    assert not (tmp_path / "b").exists()
    small = make_characters("ab")
    assert pack(corpus, small, tmp_path / "c", TokensConfig()).settings["dtype"] == "uint16"
    assert pack(corpus, small, tmp_path / "d", TokensConfig(dtype="uint32")).settings["dtype"] == "uint32"
    assert (
        open_split(tmp_path / "c", "train").read(0, 3).tolist()
        == open_split(tmp_path / "d", "train").read(0, 3).tolist()
    )


def test_the_manifest_names_parents_and_the_fingerprint_can_be_told_beforehand(
    tmp_path: Path, bpe_folder: Path, make_corpus: MakeCorpus
) -> None:
    manifest = pack(make_corpus(["a"]), bpe_folder, tmp_path / "t", TokensConfig())
    tokenizer_fp = Tokenizer.load(bpe_folder).fingerprint
    assert manifest.parents == {"corpus": "fingerprint of corpus", "tokenizer": tokenizer_fp}
    expected = tokens_fingerprint(TokensConfig(workers=7), "fingerprint of corpus", tokenizer_fp)
    assert manifest.fingerprint == expected
    assert expected != tokens_fingerprint(TokensConfig(), "another corpus", tokenizer_fp)
    assert expected != tokens_fingerprint(TokensConfig(), "fingerprint of corpus", "another tokenizer")
    assert expected != tokens_fingerprint(TokensConfig(dtype="uint32"), "fingerprint of corpus", tokenizer_fp)


def test_the_wrong_tokenizer_for_the_tokens_is_refused_by_name(
    tmp_path: Path, bpe_folder: Path, make_corpus: MakeCorpus, make_characters: MakeTokenizer
) -> None:
    pack(make_corpus(["a"]), bpe_folder, tmp_path / "t", TokensConfig())
    right = Tokenizer.load(bpe_folder)
    check_tokenizer(tmp_path / "t", right)
    wrong = Tokenizer.load(make_characters("ab"))
    with pytest.raises(
        FangcunError, match=rf"{right.fingerprint[:12]}.* 4 ids.*{wrong.fingerprint[:12]}.*--tokenizer.path"
    ):
        check_tokenizer(tmp_path / "t", wrong)


def test_long_documents_in_pieces_have_the_ids_of_the_whole(bpe_folder: Path) -> None:
    tokenizer = Tokenizer.load(bpe_folder)
    text = TEXT + "line\n\n\n  indented\n" * 30 + TEXT
    parts = list(cut_text(text, tokenizer.encode_documents, 150))
    assert len(parts) > 10
    assert "".join(parts) == text
    assert list(chain.from_iterable(tokenizer.encode_documents(parts))) == tokenizer.encode(text)
    assert [p.closes for b in batch_pieces([text, "x"], tokenizer.encode_documents, 150) for p in b].count(True) == 2


def test_where_no_cut_is_harmless_a_document_stays_whole(shared_data: Path) -> None:
    tokenizer = Tokenizer.load(shared_data / "tokenizers" / "llama2")  # puts a space in front of every text
    assert len(list(cut_text(TEXT, tokenizer.encode_documents, 150))) == 1
    assert len(list(cut_text("no line end " * 100, tokenizer.encode_documents, 150))) == 1


@pytest.mark.parametrize("name", ["qwen3", "minimind"])
def test_pieces_of_a_real_novel_have_the_ids_of_the_whole(shared_data: Path, name: str) -> None:
    tokenizer = Tokenizer.load(shared_data / "tokenizers" / name)
    with open(shared_data / "novels" / "hongloumeng.txt", encoding="utf-8") as file:
        text = file.read(30_000)
    parts = list(cut_text(text, tokenizer.encode_documents, 1000))
    assert len(parts) > 10
    assert list(chain.from_iterable(tokenizer.encode_documents(parts))) == tokenizer.encode_documents([text])[0]


@pytest.mark.parametrize(("number", "remedy"), [(errno.ENOSPC, "Free some space"), (errno.EACCES, "Check its rights")])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, bpe_folder: Path, make_corpus: MakeCorpus, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
) -> None:
    corpus = make_corpus(["a"])
    pack(corpus, bpe_folder, tmp_path / "out" / "t", TokensConfig())
    before = files_of(tmp_path / "out" / "t")

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fangcun.tokens.format.ShardWriter.add", fail)
    with pytest.raises(FangcunError, match=rf"t: {os.strerror(number)}\. {remedy}.*--out"):
        pack(corpus, bpe_folder, tmp_path / "out" / "t", TokensConfig())
    assert files_of(tmp_path / "out" / "t") == before
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["t"]


PARENT = """
    import sys, time
    from fangcun.processes import ordered_map
    from fangcun_test_work import nothing, pid_slowly
    if __name__ == "__main__":
        for pid in ordered_map(pid_slowly, iter(range(10_000)), 2, nothing):
            print(pid, flush=True)
"""
WORK = """
    import os, time
    def nothing(): pass
    def pid_slowly(i):
        time.sleep(0.2)
        return os.getpid()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_worker_processes_end_with_their_parent(tmp_path: Path, how: signal.Signals) -> None:
    (tmp_path / "fangcun_test_work.py").write_text(textwrap.dedent(WORK))
    (tmp_path / "parent.py").write_text(textwrap.dedent(PARENT))
    paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "parent.py"],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert parent.stdout is not None
    pids = {int(parent.stdout.readline()) for _ in range(6)}
    assert pids
    parent.send_signal(how)
    assert parent.wait(timeout=20) != 0
    deadline = time.monotonic() + 10
    while any(map(_lives, pids)):
        assert time.monotonic() < deadline, f"{pids} outlived their parent"
        time.sleep(0.05)


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        pass
    if sys.platform == "linux":
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _fail(item: int) -> int:
    if item == 3:
        raise FangcunError("item 3 is bad")
    return item


def _die(item: int) -> int:
    os._exit(9)


def _nothing() -> None: ...


def test_a_failing_process_is_an_error_here_not_a_hang() -> None:
    from fangcun.processes import ordered_map

    with pytest.raises(FangcunError, match="item 3 is bad"):
        list(ordered_map(_fail, range(10), 1, _nothing))
    with pytest.raises(FangcunError, match=r"ended unexpectedly.*--tokens.workers 1"):
        list(ordered_map(_die, range(10), 1, _nothing))


def test_results_keep_their_order_and_few_items_are_read_ahead() -> None:
    from fangcun.processes import ordered_map

    taken: list[int] = []

    def items():
        for i in range(30):
            taken.append(i)
            yield i

    for place, result in enumerate(ordered_map(np.int64, items(), 2, _nothing)):
        assert result == place
        assert len(taken) <= place + 2 * 2 + 1


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_a_real_corpus_and_a_trained_tokenizer_give_comparable_tokens(
    tmp_path: Path, kind: Literal["char", "bpe"]
) -> None:
    (tmp_path / "text.txt").write_text(TEXT * 3, encoding="utf-8")
    corpus_config = CorpusConfig(paths=[str(tmp_path / "text.txt")])
    corpus = build_corpus(corpus_config, tmp_path / "corpus")
    tokenizer = build_tokenizer(TokenizerConfig(kind=kind, vocab_size=300), tmp_path / "corpus", tmp_path / "tokenizer")
    manifest = pack(tmp_path / "corpus", tmp_path / "tokenizer", tmp_path / "tokens", TokensConfig())
    # What the pipeline expects before it packs: the fingerprints of the two folders.
    assert manifest.fingerprint == tokens_fingerprint(TokensConfig(), corpus.fingerprint, tokenizer.fingerprint)
    for split in ("train", "val"):
        assert manifest.counts[split]["comparable"] is True
        assert manifest.counts[split]["bytes"] == corpus.counts[split]["bytes"] > 0
        assert manifest.counts[split]["documents"] == corpus.counts[split]["documents"]
    check_tokenizer(tmp_path / "tokens", Tokenizer.load(tmp_path / "tokenizer"))
