"""A trimmed tokenizer: the text it was counted on keeps its tokens, every other text its letters."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_text import TEXT

from fangcun.errors import ConfigError, FangcunError
from fangcun.tokenizer import Tokenizer, compare_tokens, count_tokens, import_tokenizer, train_bpe, trim_tokenizer
from fangcun.tokenizer.decoding import SPACE_MARK
from fangcun.tokenizer.gb2312 import token_of_each

LEAST = 256 + 4
WORDS = st.sampled_from([*TEXT.split("。"), "天下", "合久", " fox", "🙂", "\n\n", "x >"])


@pytest.fixture(scope="module")
def byte_fallback(sentencepiece_models: dict[str, str]) -> Tokenizer:
    return import_tokenizer(sentencepiece_models["bpe"]).tokenizer


@pytest.fixture(scope="module")
def whole_words(bpe: Tokenizer) -> Tokenizer:
    """As Llama 3's: a word that is a token is taken whole, also where no merges lead to it."""
    state = json.loads(bpe.backend.to_str())
    state["model"]["ignore_merges"] = True
    made = [pair for pair in state["model"]["merges"] if len("".join(pair)) > 6]
    state["model"]["merges"] = [pair for pair in state["model"]["merges"] if pair not in made[::2]]
    return Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(state)), bpe.config)


@pytest.fixture(params=["bpe", "byte_fallback", "whole_words"])
def source(request: pytest.FixtureRequest) -> Tokenizer:
    return request.getfixturevalue(request.param)


def ids_of(tokenizer: Tokenizer, texts: Iterable[str]) -> list[list[int]]:
    return tokenizer.encode_documents(list(texts))


@settings(deadline=None, max_examples=40)
@given(corpus=st.lists(WORDS, min_size=1, max_size=6), more=st.integers(0, 60))
def test_a_corpus_whose_tokens_fit_encodes_to_exactly_the_mapped_ids(
    bpe: Tokenizer, byte_fallback: Tokenizer, whole_words: Tokenizer, corpus: list[str], more: int
) -> None:
    for source in (bpe, byte_fallback, whole_words):
        counts = count_tokens(source, corpus)
        needed = trim_tokenizer(source, counts).needed_tokens
        trimmed = trim_tokenizer(source, counts, min(needed + more, source.vocab_size))
        assert trimmed.exact
        mapped = [[int(trimmed.id_map[i]) for i in ids] for ids in ids_of(source, corpus)]
        assert ids_of(trimmed.tokenizer, corpus) == mapped


@settings(deadline=None, max_examples=150)
@given(text=st.text(max_size=60) | st.lists(WORDS).map("".join))
def test_every_text_reads_back_as_with_the_old_tokenizer(bpe: Tokenizer, byte_fallback: Tokenizer, text: str) -> None:
    for source in (bpe, byte_fallback):
        for trimmed in small_and_smallest(source):
            assert trimmed.decode(ids_of(trimmed, [text])[0]) == source.decode(ids_of(source, [text])[0])


_TRIMMED: dict[str, list[Tokenizer]] = {}


def small_and_smallest(source: Tokenizer) -> list[Tokenizer]:
    if source.fingerprint not in _TRIMMED:
        counts = count_tokens(source, ["天下大势，分久必合 the fox"])
        least = len(trim_tokenizer(source, np.zeros_like(counts)).kept_ids)
        _TRIMMED[source.fingerprint] = [trim_tokenizer(source, counts, size).tokenizer for size in (least, least + 20)]
    return _TRIMMED[source.fingerprint]


def test_role_names_of_a_chat_template_keep_their_tokens_whatever_the_text_is() -> None:
    words = "system user assistant\n\nuser\nassistant\nsystem\n" * 20
    plain = train_bpe([words, TEXT], vocab_size=400, max_han_run=4)[0]
    bare = {key: value for key, value in plain.config.items() if key != "chat_template"}
    chatty = Tokenizer(plain.backend, bare | {"chat_template": "{{ 'system' }} user assistant"})
    counts = count_tokens(chatty, ["天"])
    prompt = "user\nassistant\n\nsystem\n"
    old = chatty.encode(prompt)
    without = trim_tokenizer(Tokenizer(plain.backend, bare), counts)
    assert len(without.tokenizer.encode(prompt)) > len(old)
    for size in (None, len(trim_tokenizer(chatty, np.zeros_like(counts)).kept_ids)):
        trimmed = trim_tokenizer(chatty, counts, size)
        assert trimmed.tokenizer.encode(prompt) == trimmed.id_map[old].tolist()


def test_ids_are_dense_and_keep_their_order(source: Tokenizer) -> None:
    trimmed = trim_tokenizer(source, count_tokens(source, [TEXT]), source.vocab_size - 60)
    assert trimmed.tokenizer.vocab_size == source.vocab_size - 60
    assert (np.diff(trimmed.kept_ids) > 0).all()
    for old, new in enumerate(trimmed.id_map):
        if new >= 0:
            assert trimmed.tokenizer.backend.id_to_token(int(new)) == source.backend.id_to_token(old)
    names = {source.backend.id_to_token(i) for i in source.special_ids}
    assert {trimmed.tokenizer.backend.id_to_token(i) for i in trimmed.tokenizer.special_ids} == names
    assert trimmed.tokenizer.eos_token == source.eos_token


def test_each_kept_token_can_still_be_made(bpe: Tokenizer) -> None:
    """What is kept is closed under merging: alone, each token of a whole number of characters encodes to itself."""
    trimmed = trim_tokenizer(bpe, count_tokens(bpe, [TEXT]), 400).tokenizer
    for index in range(trimmed.vocab_size):
        text = trimmed.decode([index])
        if (
            text
            and "\ufffd" not in text
            and bpe.encode(text) == [bpe.backend.token_to_id(trimmed.backend.id_to_token(index))]
        ):
            assert trimmed.encode(text) == [index]


def test_the_tokens_that_are_used_most_stay(bpe: Tokenizer) -> None:
    text = "天下" * 100 + "分争"
    trimmed = trim_tokenizer(
        bpe, count_tokens(bpe, [text]), trim_tokenizer(bpe, count_tokens(bpe, ["天下"])).needed_tokens
    )
    assert not trimmed.exact
    assert ids_of(trimmed.tokenizer, ["天下"]) == [[int(trimmed.id_map[i]) for i in bpe.encode("天下")]]


def test_ids_that_are_to_be_kept_stay_with_what_they_are_made_of(source: Tokenizer) -> None:
    keep = [index for index in token_of_each(source, "天下大势分久必合") if index is not None]
    assert keep
    nothing = np.zeros(source.vocab_size)
    trimmed = trim_tokenizer(source, nothing, keep_ids=keep)
    assert {*keep} <= {*trimmed.kept_ids.tolist()} and len(trimmed.kept_ids) < len(keep) * 3 + LEAST + 10
    for index, again in zip(keep, token_of_each(trimmed.tokenizer, source.decode(keep).strip()), strict=True):
        assert again == trimmed.id_map[index]
    with pytest.raises(ConfigError, match="hanzi, which stay"):
        trim_tokenizer(source, nothing, len(trimmed.kept_ids) - 1, keep_ids=keep)


def test_a_special_token_that_merges_make_too_can_still_be_made_by_them(bpe: Tokenizer) -> None:
    backend = tokenizers.Tokenizer.from_str(bpe.backend.to_str())
    word = bpe.backend.id_to_token(bpe.encode("天下")[0])
    backend.add_special_tokens([word])
    source = Tokenizer(backend, bpe.config)
    counts = count_tokens(source, ["天下"])
    trimmed = trim_tokenizer(source, counts)
    assert ids_of(trimmed.tokenizer, ["天下"]) == [trimmed.id_map[ids_of(source, ["天下"])[0]].tolist()]


def test_the_comparison_counts_tokens_that_stand_where_they_stood(bpe: Tokenizer) -> None:
    counts = count_tokens(bpe, [TEXT])
    same = compare_tokens(bpe, trim_tokenizer(bpe, counts).tokenizer, [TEXT])
    assert same["same_pieces_share"] == 1 and same["tokens_after"] == same["tokens_before"] == counts.sum()
    bytes_only = compare_tokens(bpe, trim_tokenizer(bpe, counts, LEAST).tokenizer, [TEXT])
    assert bytes_only["tokens_after"] == len(TEXT.encode()) and bytes_only["same_text"] is True
    ones = sum(len(piece) == 1 for piece in pieces(bpe, TEXT))
    assert bytes_only["same_pieces_share"] == pytest.approx(ones / counts.sum(), abs=1e-6)


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.backend.id_to_token(i) for i in ids_of(tokenizer, [text])[0]]


def test_the_space_mark_stays_so_that_spaces_stay_spaces(byte_fallback: Tokenizer) -> None:
    smallest = small_and_smallest(byte_fallback)[0]
    assert smallest.backend.token_to_id(SPACE_MARK) is not None
    assert smallest.decode(smallest.encode("a b  c")) == "a b  c"


def test_a_size_that_cannot_be_is_told_with_the_ones_that_can(bpe: Tokenizer) -> None:
    counts = count_tokens(bpe, [TEXT])
    for size in (LEAST - 1, bpe.vocab_size + 1):
        with pytest.raises(ConfigError, match=rf"expected {LEAST} .* to {bpe.vocab_size} .*The text needs \d+"):
            trim_tokenizer(bpe, counts, size)
    assert len(trim_tokenizer(bpe, counts, LEAST).kept_ids) == LEAST
    assert trim_tokenizer(bpe, counts, bpe.vocab_size).tokenizer.fingerprint == bpe.fingerprint


def test_what_could_not_spell_every_text_is_refused(char: Tokenizer, sentencepiece_models: dict[str, str]) -> None:
    with pytest.raises(FangcunError, match="neither byte-level nor has it byte fallback"):
        trim_tokenizer(char, np.zeros(char.vocab_size))
    unigram = import_tokenizer(sentencepiece_models["unigram"]).tokenizer
    with pytest.raises(FangcunError, match="Unigram tokenizer; only BPE can be trimmed"):
        trim_tokenizer(unigram, np.zeros(unigram.vocab_size))


def test_transformers_opens_it_with_the_same_ids(bpe: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    trimmed = trim_tokenizer(bpe, count_tokens(bpe, [TEXT]), 350).tokenizer
    trimmed.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(TEXT, add_special_tokens=False)["input_ids"] == trimmed.encode(TEXT)
    assert theirs.eos_token_id == trimmed.eos_id and theirs.pad_token_id == trimmed.pad_id


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen3", "gpt2", "llama2", "chatglm", "minimind"])
def test_real_tokenizers_are_trimmed_to_a_novel(shared_data: Path, name: str) -> None:
    source = import_tokenizer(shared_data / "tokenizers" / name).tokenizer
    novel = (shared_data / "novels" / "hongloumeng.txt").read_text(encoding="utf-8")[:100_000]
    trimmed = trim_tokenizer(source, count_tokens(source, [novel]))
    assert ids_of(trimmed.tokenizer, [novel]) == [trimmed.id_map[ids_of(source, [novel])[0]].tolist()]
    other = "Zażółć gęślą jaźń 🙂 𠀀𪚥 ﷽ \u200d\x00 Ⅳ e\u0301"
    old, new = source.encode(other, special_tokens=False), trimmed.tokenizer.encode(other, special_tokens=False)
    assert source.decode(old) == trimmed.tokenizer.decode(new)
