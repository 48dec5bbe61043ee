"""Text that arrives id by id: whole characters only, and in the end the same text as at once."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_text import TEXT

from fangcun.tokenizer import Tokenizer, import_tokenizer, train_bpe
from fangcun.tokenizer.stream import WindowStream


def streamed(tokenizer: Tokenizer, ids: list[int], **options) -> str:
    stream = tokenizer.stream(**options)
    return "".join(stream.push(i) for i in ids) + stream.flush()


@pytest.fixture(scope="module")
def bytes_only() -> Tokenizer:
    """Every character outside ASCII is several tokens."""
    return train_bpe([""], vocab_size=260, max_han_run=1)[0]


@pytest.fixture(scope="module")
def fallback(sentencepiece_models: dict[str, str]) -> Tokenizer:
    return import_tokenizer(sentencepiece_models["bpe"]).tokenizer


@given(data=st.data())
@settings(deadline=None, max_examples=200)
def test_any_ids_stream_to_what_decode_gives(
    bpe: Tokenizer, char: Tokenizer, bytes_only: Tokenizer, fallback: Tokenizer, data: st.DataObject
) -> None:
    for tokenizer in (bpe, char, bytes_only, fallback):
        # Ids beyond the vocabulary (a padded embedding has rows for them) stand for nothing.
        ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size + 3), max_size=30))
        assert streamed(tokenizer, ids) == tokenizer.decode(ids)
        assert streamed(tokenizer, ids, skip_special_tokens=False) == tokenizer.decode(ids, skip_special_tokens=False)


@given(st.lists(st.integers(0, 480), max_size=30))
@settings(deadline=None, max_examples=200)
def test_byte_level_decoding_is_the_librarys(bpe: Tokenizer, ids: list[int]) -> None:
    for skip in (True, False):
        assert bpe.decode(ids, skip_special_tokens=skip) == bpe.backend.decode(ids, skip_special_tokens=skip)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd")))
@settings(deadline=None, max_examples=200)
def test_whole_characters_come_at_the_earliest_moment(bytes_only: Tokenizer, text: str) -> None:
    stream, out = bytes_only.stream(), ""
    for position, token_id in enumerate(bytes_only.encode(text, special_tokens=False), 1):
        new = stream.push(token_id)
        assert "\ufffd" not in new
        out += new
        assert out == text.encode()[:position].decode("utf-8", "ignore")
    assert stream.flush() == ""
    assert out == text


def test_a_character_cut_off_at_the_end_is_marked_once(bytes_only: Tokenizer) -> None:
    ids = bytes_only.encode("好")[:-1]
    stream = bytes_only.stream()
    assert [stream.push(i) for i in ids] == ["", ""]
    assert stream.flush() == "\ufffd"
    assert stream.flush() == ""


def test_text_after_a_prompt_keeps_its_leading_space(fallback: Tokenizer) -> None:
    ids = fallback.encode("the quick brown")
    prompt, rest = ids[:-2], ids[-2:]
    whole = fallback.decode(ids)
    assert fallback.decode(prompt) + streamed(fallback, rest, context=prompt) == whole


def test_byte_fallback_streams_each_character_when_it_is_complete(fallback: Tokenizer) -> None:
    text = "龘🙂靐"
    ids = fallback.encode(text)
    stream = fallback.stream()
    parts = [stream.push(i) for i in ids]
    assert [part for part in parts if part] == list(text)
    assert stream.flush() == ""


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd"), max_size=40))
@settings(deadline=None, max_examples=150)
def test_a_decoder_without_a_table_streams_the_same_text(bytes_only: Tokenizer, text: str) -> None:
    ids = bytes_only.encode(text, special_tokens=False)
    stream = WindowStream(bytes_only.decode)
    parts = [stream.push(i) for i in ids]
    assert not any("\ufffd" in part for part in parts)
    assert "".join(parts) + stream.flush() == text


def test_the_window_does_not_grow_with_the_text(bytes_only: Tokenizer) -> None:
    longest = 0

    def decode(ids: list[int]) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        return bytes_only.decode(ids)

    stream = WindowStream(decode)
    for token_id in bytes_only.encode(TEXT * 3):
        stream.push(token_id)
    assert longest <= 2 * WindowStream.LONGEST_HOLD
