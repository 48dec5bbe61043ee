"""Promises of adopting: flat files of other programs open as tokens, and those of another tokenizer are refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from fangcun.errors import FangcunError
from fangcun.tokenizer import Tokenizer
from fangcun.tokens import adopt, check_tokenizer, open_split
from fangcun.tokens.format import DtypeName

TEXTS = ["话说天下大势，", "分久必合。\n", "", "the end", "not closed"]


def write_flat(path: Path, tokenizer: Tokenizer, texts: list[str], dtype: str = "<u2") -> list[int]:
    ids = [i for text in texts for i in [*tokenizer.encode(text), tokenizer.eos_id]][:-1]
    np.array(ids, dtype=dtype).tofile(path)
    return ids


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
@pytest.mark.parametrize("say", [False, True])
@pytest.mark.parametrize("chunk", [7, 1 << 22])
def test_flat_files_become_tokens(
    tmp_path: Path, bpe_folder: Path, dtype: DtypeName, say: bool, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["fangcun.tokens.adopt"], "_CHUNK_TOKENS", chunk)
    tokenizer = Tokenizer.load(bpe_folder)
    disk = {"uint16": "<u2", "uint32": "<u4"}[dtype]
    ids = write_flat(tmp_path / "train.bin", tokenizer, TEXTS, disk)
    write_flat(tmp_path / "val.bin", tokenizer, TEXTS[:2], disk)
    manifest = adopt(
        tmp_path / "train.bin", tmp_path / "val.bin", bpe_folder, tmp_path / "tokens", dtype if say else "auto"
    )
    assert manifest.settings["dtype"] == dtype
    split = open_split(tmp_path / "tokens", "train")
    assert split.read(0, split.n_tokens).tolist() == ids
    assert split.document_bytes.tolist() == [len(text.encode()) for text in TEXTS]
    starts = [0, *split.document_ends.tolist()]
    assert starts[-1] == len(ids)
    assert [tokenizer.decode(ids[a:b]) for a, b in pairwise(starts)] == TEXTS
    assert split.total_bytes == sum(len(text.encode()) for text in TEXTS)
    assert split.comparable
    assert open_split(tmp_path / "tokens", "val").n_documents == 2
    assert (tmp_path / "tokens" / "train-00000.bin").read_bytes() == (tmp_path / "train.bin").read_bytes()
    check_tokenizer(tmp_path / "tokens", tokenizer)


def test_a_stream_without_document_ends_is_one_document(tmp_path: Path, make_characters: Callable[..., Path]) -> None:
    folder = make_characters("abc")
    tokenizer = Tokenizer.load(folder)
    np.array(tokenizer.encode("abcabc"), "<u2").tofile(tmp_path / "train.bin")
    manifest = adopt(tmp_path / "train.bin", None, folder, tmp_path / "t")
    assert manifest.counts["train"]["documents"] == 1
    assert open_split(tmp_path / "t", "train").document_ends.tolist() == [6]
    assert open_split(tmp_path / "t", "val").n_tokens == 0


def test_unknown_tokens_make_bits_per_byte_not_comparable(tmp_path: Path, make_characters: Callable[..., Path]) -> None:
    folder = make_characters("abc")
    np.array(Tokenizer.load(folder).encode("abxc"), "<u2").tofile(tmp_path / "train.bin")
    train = adopt(tmp_path / "train.bin", None, folder, tmp_path / "t").counts["train"]
    assert (train["unk_tokens"], train["comparable"]) == (1, False)


@pytest.mark.parametrize(
    ("values", "dtype", "asked", "message"),
    [
        (
            [5, 299, 300, 7],
            "<u2",
            "auto",
            r"train\.bin: token 2 is id 300, but the tokenizer has 300 ids.*--tokenizer.path",
        ),
        ([5, 300, 7], "<u4", "uint32", r"token 1 is id 300, but the tokenizer has 300"),
        ([5, 6, 7], "u1", "auto", r"3 bytes, an odd number"),
        ([5, 6, 7], "<u2", "uint32", r"6 bytes, which is no multiple of 4"),
    ],
)
def test_files_of_another_tokenizer_or_type_are_refused(
    tmp_path: Path, bpe_folder: Path, values: list[int], dtype: str, asked: DtypeName, message: str
) -> None:
    np.array(values, dtype).tofile(tmp_path / "train.bin")
    assert Tokenizer.load(bpe_folder).vocab_size == 300
    with pytest.raises(FangcunError, match=message):
        adopt(tmp_path / "train.bin", None, bpe_folder, tmp_path / "t", asked)
    assert not (tmp_path / "t").exists()


def test_a_missing_file_is_named(tmp_path: Path, bpe_folder: Path) -> None:
    with pytest.raises(FangcunError, match=r"gone\.bin does not exist"):
        adopt(tmp_path / "gone.bin", None, bpe_folder, tmp_path / "t")
