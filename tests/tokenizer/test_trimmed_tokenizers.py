"""Promises of a trimmed tokenizer: every text is still spelled, the corpus keeps its ids, and a checkpoint goes along."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizer_text import TEXT

from fangcun.artifacts import read_manifest
from fangcun.errors import FangcunError
from fangcun.tokenizer import Tokenizer, import_tokenizer, train_bpe, trim_tokenizer
from fangcun.tokenizer.bpe_file import BpeFile
from fangcun.tokenizer.self_check import EVERYDAY, RARE
from fangcun.tokenizer.trim import REMOVED, count_usage, write_trimmed

quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
pieces = st.lists(st.sampled_from([*TEXT, *TEXT.split(), "天下", "汉朝", "  ", "return"]), min_size=1, max_size=40)


@pytest.fixture(scope="session")
def fallback(sentencepiece_models: dict[str, str]) -> Tokenizer:
    return import_tokenizer(sentencepiece_models["bpe"]).tokenizer


@pytest.fixture(params=["bpe", "fallback"])
def large(request: pytest.FixtureRequest) -> Tokenizer:
    return request.getfixturevalue(request.param)


@quick
@given(corpus=st.lists(pieces.map("".join), min_size=1, max_size=4), room=st.integers(0, 60))
def test_when_all_that_is_used_fits_the_corpus_has_exactly_the_mapped_ids(
    large: Tokenizer, corpus: list[str], room: int
) -> None:
    needed = trim_tokenizer(large, corpus).tokenizer.vocab_size
    for size in (None, min(needed + room, large.vocab_size)):
        trimmed = trim_tokenizer(large, corpus, size)
        for text in corpus:
            assert trimmed.tokenizer.encode(text) == trimmed.id_map[large.encode(text)].tolist()
        assert trimmed.tokenizer.vocab_size == (size or needed)


@quick
@given(text=st.text(max_size=60), size=st.integers(270, 500))
def test_every_string_comes_back_as_from_the_original(large: Tokenizer, text: str, size: int) -> None:
    small = trim_tokenizer(large, [TEXT], max(min(size, large.vocab_size), len(BpeFile.of(large, "it").base))).tokenizer
    assert small.decode(small.encode(text, special_tokens=False)) == large.decode(
        large.encode(text, special_tokens=False)
    )


def test_no_merge_is_wanting_or_left_over_and_ids_are_dense_in_their_old_order(large: Tokenizer) -> None:
    trimmed = trim_tokenizer(large, [TEXT], 300)
    old, new = large.backend.get_vocab(), trimmed.tokenizer.backend.get_vocab()
    assert sorted(new.values()) == list(range(300))
    assert all(trimmed.id_map[old[token]] == index for token, index in new.items())
    assert {token for token, index in old.items() if trimmed.id_map[index] == REMOVED} == old.keys() - new.keys()
    assert np.all(np.diff(trimmed.kept) > 0) and np.array_equal(trimmed.id_map[trimmed.kept], np.arange(300))
    file, left = BpeFile.of(large, "it"), BpeFile.of(trimmed.tokenizer, "it").merges
    assert left == [(a, b) for a, b in file.merges if {a, b, a + b} <= new.keys()]
    made = [token for token in new if len(token) > 1 and token not in file.added and not token.startswith("<0x")]
    assert {a + b for a, b in left} >= {token for token in made if token in {a + b for a, b in file.merges}}


def test_the_most_used_tokens_are_kept_first(bpe: Tokenizer) -> None:
    counts = count_usage(bpe, [TEXT])
    kept = trim_tokenizer(bpe, [TEXT], 290).kept
    base = BpeFile.of(bpe, "it").base
    best = int(np.argmax(np.where(np.isin(np.arange(len(counts)), list(base)), 0, counts)))
    assert best in kept


def test_special_tokens_names_and_the_end_stay(large: Tokenizer) -> None:
    small = trim_tokenizer(large, [TEXT], 300).tokenizer
    assert small.eos_token == large.eos_token
    names = {large.backend.id_to_token(index) for index in large.special_ids}
    assert {small.backend.id_to_token(index) for index in small.special_ids} == names
    for name in names:
        assert small.encode(f"a{name}b").count(small.backend.token_to_id(name)) == 1
    assert {key: small.config.get(key) for key in large.config} == large.config


def test_role_names_of_a_chat_template_keep_their_ids() -> None:
    words = "system user assistant\n\nuser\nassistant\nsystem\n" * 20
    plain = train_bpe([words, TEXT], vocab_size=400, max_han_run=4)[0]
    chatty = Tokenizer(plain.backend, plain.config | {"chat_template": "{{ 'system' }} user assistant"})
    prompt = f"{chatty.eos_token}user\nassistant\n\n"
    smallest = trim_tokenizer(plain, ["天"]).tokenizer
    assert len(smallest.encode(prompt)) > len(plain.encode(prompt))
    trimmed = trim_tokenizer(chatty, ["天"])
    assert trimmed.tokenizer.encode(prompt) == trimmed.id_map[chatty.encode(prompt)].tolist()
    assert trimmed.report["always_kept"] < trimmed.tokenizer.vocab_size


def test_the_report_counts_what_was_lost(bpe: Tokenizer) -> None:
    trimmed = trim_tokenizer(bpe, [TEXT] * 3, 280)
    report = trimmed.report
    counts = count_usage(bpe, [TEXT] * 3)
    lost = counts[trimmed.id_map == REMOVED]
    assert report["used_tokens_removed"] == np.count_nonzero(lost) > 0
    assert report["usage_kept_share"] == pytest.approx(1 - lost.sum() / counts.sum(), abs=1e-6)
    assert report["sample"]["tokens"] > report["sample"]["old_tokens"]
    assert 0 < report["sample"]["same_pieces_share"] < 1


def test_transformers_opens_the_folder_and_gives_the_same_ids(large: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    trimmed = trim_tokenizer(large, [TEXT], 300)
    write_trimmed(trimmed, tmp_path / "small", large.fingerprint)
    assert read_manifest(tmp_path / "small", "tokenizer", verify=True).counts["vocab_size"] == 300
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "small", local_files_only=True)
    for text in (TEXT, *EVERYDAY, *RARE):
        assert theirs(text, add_special_tokens=False)["input_ids"] == trimmed.tokenizer.encode(text)
    assert theirs.eos_token_id == trimmed.tokenizer.eos_id
    assert np.array_equal(np.load(tmp_path / "small" / "id_map.npy"), trimmed.id_map)


def test_what_cannot_be_trimmed_is_refused_by_name(
    bpe: Tokenizer, char: Tokenizer, sentencepiece_models: dict[str, str]
) -> None:
    with pytest.raises(FangcunError, match="Unigram"):
        trim_tokenizer(import_tokenizer(sentencepiece_models["unigram"]).tokenizer, [TEXT], 200)
    with pytest.raises(FangcunError, match="mine"):
        trim_tokenizer(char, [TEXT], 50, where="mine")
    for size in (100, bpe.vocab_size + 1):
        with pytest.raises(FangcunError, match=rf"size is {size}, expected 2\d\d .* to {bpe.vocab_size}"):
            trim_tokenizer(bpe, [TEXT], size)
    with pytest.raises(FangcunError, match="no text"):
        trim_tokenizer(bpe, [], 300)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen3", "gpt2", "llama2", "chatglm", "minimind"])
def test_real_tokenizers_keep_the_ids_of_a_novel(shared_data: Path, name: str) -> None:
    text = (shared_data / "novels" / "sanguoyanyi.txt").read_text(encoding="utf-8")[:100_000]
    tokenizer = import_tokenizer(shared_data / "tokenizers" / name).tokenizer
    trimmed = trim_tokenizer(tokenizer, [text])
    small = trimmed.tokenizer
    assert small.encode(text) == trimmed.id_map[tokenizer.encode(text)].tolist()
    for other in (*EVERYDAY, *RARE):
        assert small.decode(small.encode(other)) == tokenizer.decode(tokenizer.encode(other))
