"""Promises of the fast encoders: the ids of `tokenizers`, or they are not used."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_text import TEXT
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend

from fangcun.errors import ConfigError
from fangcun.tokenizer import Tokenizer
from fangcun.tokenizer.bulk import (
    FAST_FROM_BYTES,
    BulkEncoder,
    FlatIds,
    character_encoder,
    choose_encoder,
    fastokens_encoder,
    library_encoder,
)
from fangcun.tokenizer.bulk_check import NASTY, difference, safe_characters
from fangcun.tokenizer.self_check import EVERYDAY, RARE

STRINGS = [*EVERYDAY, *RARE, *NASTY, TEXT, "a <|endoftext|><|im_start|> b <unk>"]
ANY_TEXT = st.lists(st.text(max_size=60) | st.sampled_from(STRINGS), max_size=6)


def lists_of(flat: FlatIds) -> list[list[int]]:
    assert flat.ids.dtype == np.uint32
    assert flat.lengths.sum() == len(flat.ids)
    return [part.tolist() for part in np.split(flat.ids, np.cumsum(flat.lengths))[:-1]]


def word_level() -> Tokenizer:
    backend = Backend(models.WordLevel({"<|endoftext|>": 0, "<unk>": 1, "a": 2, "天": 3}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.add_special_tokens(["<|endoftext|>", "<unk>"])
    return Tokenizer(backend)


@settings(max_examples=60, deadline=None)
@given(ANY_TEXT)
def test_the_reference_gives_the_lists_end_to_end(bpe: Tokenizer, texts: list[str]) -> None:
    assert lists_of(library_encoder(bpe).encode(texts)) == bpe.encode_documents(texts)


@settings(max_examples=60, deadline=None)
@given(ANY_TEXT)
def test_the_table_of_characters_gives_the_ids_of_tokenizers(char: Tokenizer, texts: list[str]) -> None:
    for tokenizer in (char, word_level()):
        encoder = character_encoder(tokenizer)
        assert encoder is not None
        assert lists_of(encoder.encode(texts)) == tokenizer.encode_documents(texts)


def test_vocabularies_of_more_than_characters_get_no_table(bpe: Tokenizer) -> None:
    assert character_encoder(bpe) is None
    lower = word_level().backend
    lower.normalizer = normalizers.Lowercase()
    assert character_encoder(Tokenizer(lower)) is None
    ordinary = word_level().backend
    ordinary.add_tokens([AddedToken("aa", special=False)])  # found in documents too
    assert character_encoder(Tokenizer(ordinary)) is None


@pytest.fixture(scope="module")
def fast(bpe: Tokenizer) -> BulkEncoder:
    pytest.importorskip("fastokens")
    encoder = fastokens_encoder(bpe, [TEXT])
    assert isinstance(encoder, BulkEncoder), encoder
    return encoder


@settings(max_examples=100, deadline=None)
@given(ANY_TEXT)
def test_fastokens_gives_the_ids_of_tokenizers(fast: BulkEncoder, bpe: Tokenizer, texts: list[str]) -> None:
    assert lists_of(fast.encode(texts)) == bpe.encode_documents(texts)


@pytest.mark.parametrize("name", ["gpt2", "qwen3", "minimind", "llama2"])
def test_fastokens_gives_the_ids_of_tokenizers_with_known_vocabularies(shared_data: Any, name: str) -> None:
    pytest.importorskip("fastokens")
    from fangcun.tokenizer import import_tokenizer

    tokenizer = import_tokenizer(shared_data / "tokenizers" / name).tokenizer
    encoder = fastokens_encoder(tokenizer, [])
    assert isinstance(encoder, BulkEncoder), encoder
    # U+180E is a space for the pattern engine of tokenizers, and none for fastokens.
    texts = [*STRINGS, (shared_data / "web" / "wanjuan_sample.jsonl").read_text()[:100_000], "a\u180e1\u180e \u180ea"]
    assert lists_of(encoder.encode(texts)) == tokenizer.encode_documents(texts)


def fake_fastokens(monkeypatch: pytest.MonkeyPatch, tokenizer: Tokenizer, spoil: Any) -> None:
    """A `fastokens` that gives the right ids but for what `spoil` does to them."""

    def flat(texts: Sequence[str], split_special_tokens: bool) -> tuple[bytes, bytes]:
        assert split_special_tokens
        lists = [spoil(text, list(ids)) for text, ids in zip(texts, tokenizer.encode_documents(texts), strict=True)]
        ends = np.cumsum([0, *map(len, lists)]).astype("<u8").tobytes()
        return np.array([i for ids in lists for i in ids], "<u4").tobytes(), ends

    backend = SimpleNamespace(encode_batch_flat=flat)
    module = SimpleNamespace(Tokenizer=SimpleNamespace(from_json_str=lambda _: backend), __spec__=SimpleNamespace())
    monkeypatch.setitem(sys.modules, "fastokens", module)  # type: ignore[arg-type]


def test_an_encoder_with_other_ids_is_not_used_and_one_line_says_so(
    bpe: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_fastokens(monkeypatch, bpe, lambda text, ids: [0, *ids] if "only in the corpus" in text else ids)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose_encoder(bpe, ["another text"], FAST_FROM_BYTES).name == "fastokens"
        assert choose_encoder(bpe, ["only in the corpus"], FAST_FROM_BYTES - 1).name == "tokenizers"
    with pytest.warns(UserWarning, match=r"^fastokens is not used: .*'only in the corpus'.*encoded by tokenizers\.$"):
        assert choose_encoder(bpe, ["only in the corpus"], FAST_FROM_BYTES).name == "tokenizers"
    with pytest.raises(ConfigError, match=r"tokens\.encoder.*only in the corpus.*auto"):
        choose_encoder(bpe, ["only in the corpus"], FAST_FROM_BYTES, "fastokens")


def test_special_tokens_of_documents_are_in_the_comparison(bpe: Tokenizer) -> None:
    def as_a_prompt(texts: Sequence[str]) -> FlatIds:
        lists = [bpe.encode(text, special_tokens=True) for text in texts]
        return FlatIds(np.array([i for ids in lists for i in ids], np.uint32), np.array(list(map(len, lists))))

    where = difference(bpe, as_a_prompt, [])
    assert where is not None
    assert "<|" in where


def test_texts_with_a_character_treated_differently_go_to_tokenizers(
    bpe: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_fastokens(monkeypatch, bpe, lambda text, ids: [0, *ids] if "\u180e" in text or "]" in text else ids)
    encoder = fastokens_encoder(bpe, [])
    assert isinstance(encoder, str)  # "]" stands in everyday text
    fake_fastokens(monkeypatch, bpe, lambda text, ids: [0, *ids] if "\u180e" in text else ids)
    encoder = fastokens_encoder(bpe, [])
    assert isinstance(encoder, BulkEncoder)
    texts = ["plain", "a\u180eb", "", "plain too", "\u180e", ""]
    assert lists_of(encoder.encode(texts)) == bpe.encode_documents(texts)


def test_the_walk_through_unicode_finds_the_characters(bpe: Tokenizer) -> None:
    def spoiled(texts: Sequence[str]) -> FlatIds:
        flat = library_encoder(bpe).encode(texts)
        wrong = [i for i, text in enumerate(texts) if "\u0e33" in text or "\U0001f43c" in text]
        at = np.cumsum(flat.lengths) - flat.lengths
        flat.ids[at[wrong]] += 1
        return flat

    safe, unspoiled = safe_characters(bpe, spoiled), safe_characters(bpe, library_encoder(bpe).encode)
    assert isinstance(safe, np.ndarray)
    assert isinstance(unspoiled, np.ndarray)
    assert np.flatnonzero(safe != unspoiled).tolist() == [0x0E33, 0x1F43C]
    assert all(unspoiled[list(map(ord, TEXT + "".join(EVERYDAY)))])
    assert not unspoiled[0x16A0F]  # not tried: such text is left to tokenizers


def test_a_text_that_fastokens_fails_on_goes_to_tokenizers(bpe: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(text: str, ids: list[int]) -> list[int]:
        if "limit" in text:
            raise RuntimeError("match limit")
        return ids

    fake_fastokens(monkeypatch, bpe, fail)
    encoder = fastokens_encoder(bpe, [])
    assert isinstance(encoder, BulkEncoder)
    assert lists_of(encoder.encode(["limit", "x"])) == bpe.encode_documents(["limit", "x"])
    assert "match limit" in str(fastokens_encoder(bpe, ["limit"]))


def test_fastokens_that_is_not_there_is_an_error_only_when_named(
    bpe: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fastokens", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose_encoder(bpe, [], FAST_FROM_BYTES).name == "tokenizers"
    with pytest.raises(ConfigError, match=r"fastokens.*not installed.*pip install"):
        choose_encoder(bpe, [], FAST_FROM_BYTES, "fastokens")
    assert choose_encoder(bpe, [], FAST_FROM_BYTES, "tokenizers").name == "tokenizers"
