"""Tokenizers trained here: what is in the vocabulary, what comes back, and that transformers agrees."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_text import TEXT

from fangcun.errors import FangcunError
from fangcun.tokenizer import Tokenizer, train_bpe, train_char
from fangcun.tokenizer.patterns import QWEN2

TRICKY = (
    TEXT,
    "",
    " ",
    "  two  spaces \t tab\r\n\n end ",
    "𠀀🙂👨‍👩‍👧 e\u0301 \x00\x7f\ufeff\ufffd ＡＢ，！",
    "isn't   don't .  , ( x )",
)


@given(st.text())
@settings(deadline=None, max_examples=300)
def test_bpe_gives_any_unicode_text_back(bpe: Tokenizer, text: str) -> None:
    (ids,) = bpe.encode_documents([text])
    assert bpe.decode(ids) == text
    assert sum(bpe.token_bytes()[i] for i in ids) == len(text.encode())


@given(st.text(alphabet=sorted(set(TEXT))))
@settings(deadline=None, max_examples=200)
def test_characters_give_text_of_their_alphabet_back(char: Tokenizer, text: str) -> None:
    (ids,) = char.encode_documents([text])
    assert len(ids) == len(text)
    assert char.decode(ids) == text
    assert sum(char.token_bytes()[i] for i in ids) == len(text.encode())


def test_character_ids_go_by_code_point_after_the_special_tokens(char: Tokenizer) -> None:
    alphabet = sorted(set(TEXT))
    assert char.vocab_size == 5 + len(alphabet)
    assert char.encode("".join(alphabet)) == list(range(5, char.vocab_size))
    assert (char.pad_id, char.eos_id, char.unk_id) == (0, 1, 4)
    assert char.encode("龘🙂") == [4, 4]


def test_bpe_special_tokens_come_first_and_all_bytes_are_there(bpe: Tokenizer) -> None:
    assert (bpe.pad_id, bpe.eos_id, bpe.unk_id) == (0, 1, None)
    assert [bpe.backend.id_to_token(i) for i in range(4)] == ["<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    assert bpe.token_bytes()[:4] == [0, 0, 0, 0]
    assert bpe.token_bytes()[4:260] == [1] * 256


def test_special_strings_are_text_in_documents_and_tokens_in_prompts(bpe: Tokenizer, char: Tokenizer) -> None:
    text = "a<|endoftext|><|im_start|>b"
    for tokenizer in (bpe, char):
        (document,) = tokenizer.encode_documents([text])
        assert not tokenizer.special_ids & set(document) - {tokenizer.unk_id}
        assert tokenizer.encode(text, special_tokens=False) == document
        prompt = tokenizer.encode(text)
        assert prompt.count(1) == prompt.count(2) == 1
        assert len(prompt) < len(document)
    assert bpe.decode(bpe.encode_documents([text])[0]) == text


def script_of(character: str) -> str | None:
    name = unicodedata.name(character, "")
    if not character.isalpha():
        return None
    return next(
        (script for script in ("CJK UNIFIED", "LATIN", "CYRILLIC", "HIRAGANA", "HANGUL") if name.startswith(script)),
        None,
    )


def test_tokens_hold_one_script_short_han_runs_and_single_digits() -> None:
    line = "天下大势分久必合天下大势分久必合 版本v2版本 Tokenизм日本ひらがな한국 人工intelligence智能2024年\n"
    tokenizer, _ = train_bpe([line * 5] * 10, vocab_size=2000, max_han_run=3)
    longest = 0
    for token_id in range(260, tokenizer.vocab_size):
        text = tokenizer.decode([token_id])
        assert len({script_of(c) for c in text} - {None}) <= 1, text
        assert sum(c.isdigit() for c in text) <= 1, text
        han = sum(script_of(c) == "CJK UNIFIED" for c in text)
        assert not han or han == len(text.strip("\ufffd")), text
        longest = max(longest, han)
    assert longest == 3


def test_every_learned_token_can_be_reached_by_the_saved_pattern() -> None:
    tokenizer, _ = train_bpe([TEXT] * 20, vocab_size=600, max_han_run=4)
    split = tokenizer.backend.pre_tokenizer
    assert split is not None
    for token_id in range(260, tokenizer.vocab_size):
        text = tokenizer.decode([token_id])
        if "\ufffd" not in text:
            assert len(split.pre_tokenize_str(text)) == 1, text


def test_the_saved_file_names_qwen2s_pattern_and_no_normalizer(bpe: Tokenizer, tmp_path: Path) -> None:
    bpe.save(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert content["normalizer"] is None
    assert content["pre_tokenizer"]["pretokenizers"][0]["pattern"] == {"Regex": QWEN2}
    assert content["model"]["type"] == "BPE"


@pytest.mark.parametrize("kind", ["bpe", "char"])
def test_transformers_opens_the_folder_and_agrees(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer: Tokenizer = request.getfixturevalue(kind)
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    for text in TRICKY:
        ids = tokenizer.encode(text)
        assert theirs(text)["input_ids"] == ids == theirs(text, add_special_tokens=False)["input_ids"]
        assert theirs.decode(ids) == tokenizer.decode(ids, skip_special_tokens=False)
        assert theirs.decode(ids, skip_special_tokens=True) == tokenizer.decode(ids)
    assert (theirs.eos_token_id, theirs.pad_token_id, len(theirs)) == (1, 0, tokenizer.vocab_size)
    prompt = theirs.apply_chat_template(
        [{"role": "user", "content": "你好"}], tokenize=False, add_generation_prompt=True
    )
    assert prompt == "<|im_start|>user\n你好<|im_end|>\n<|im_start|>assistant\n"


def test_saving_and_loading_keeps_ids_and_fingerprint(bpe: Tokenizer, char: Tokenizer, tmp_path: Path) -> None:
    for name, tokenizer in (("bpe", bpe), ("char", char)):
        tokenizer.save(tmp_path / name)
        again = Tokenizer.load(tmp_path / name)
        assert again.fingerprint == tokenizer.fingerprint
        assert (again.eos_id, again.pad_id, again.unk_id) == (tokenizer.eos_id, tokenizer.pad_id, tokenizer.unk_id)
        assert again.encode(TEXT) == tokenizer.encode(TEXT)
    assert bpe.fingerprint != char.fingerprint


def test_training_gives_the_same_file_in_another_process(bpe: Tokenizer) -> None:
    code = "import sys; sys.path[:0] = sys.argv[1:]; from tokenizer_text import TEXT; from fangcun.tokenizer import train_bpe; print(train_bpe([TEXT] * 20, vocab_size=500, max_han_run=4)[0].fingerprint)"
    here = Path(__file__).parent
    made = subprocess.run(
        [sys.executable, "-c", code, str(here), str(here.parents[1])], capture_output=True, text=True, check=True
    )
    assert made.stdout.strip() == bpe.fingerprint


def test_a_small_corpus_gives_a_smaller_vocabulary_and_a_note() -> None:
    tokenizer, notes = train_bpe(["短文 short"], vocab_size=5000, max_han_run=4)
    assert 260 <= tokenizer.vocab_size < 5000
    assert len(notes) == 1 and "5,000" in notes[0]


def test_a_vocabulary_without_room_for_the_bytes_is_refused() -> None:
    with pytest.raises(FangcunError, match=r"tokenizer.vocab_size is 100.*at least 260"):
        train_bpe([TEXT], vocab_size=100, max_han_run=4)


def test_characters_of_an_empty_corpus_are_refused() -> None:
    with pytest.raises(FangcunError, match="empty"):
        train_char([])


def test_a_megabyte_of_characters_encodes_within_seconds(char: Tokenizer) -> None:
    text = TEXT * (1_000_000 // len(TEXT.encode()) + 1)
    started = time.perf_counter()
    assert len(char.encode_documents([text])[0]) == len(text)
    assert time.perf_counter() - started < 5
