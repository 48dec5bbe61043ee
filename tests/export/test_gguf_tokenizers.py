"""A tokenizer in GGUF: any text has the same ids in llama.cpp, and tokenizers for which that cannot hold are refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import story
from tokenizers import Regex, normalizers, pre_tokenizers

from fangcun.config import ModelConfig, resolve_model
from fangcun.errors import FangcunError
from fangcun.export import export_gguf
from fangcun.export.gguf_vocabulary import CONTROL, NORMAL, USER_DEFINED, gguf_vocabulary
from fangcun.export.verify_texts import PROMPTS, TEXTS
from fangcun.model import Transformer, initialize, save_model
from fangcun.tokenizer import Tokenizer, train_bpe, train_char
from fangcun.tokenizer.patterns import CL100K, GPT2

pytest.importorskip("gguf", reason="the extra export is not installed")

ENGLISH = "The quick brown fox doesn't jump; it's 12,345 o'clock. WE'LL see, I'VE said. \n\n  for i in range(100):\n\treturn i\n"


def cut(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def changed(words: Tokenizer, **parts: Any) -> Tokenizer:
    """The same vocabulary with another normalizer or pre-tokenizer."""
    backend = tokenizers.Tokenizer.from_str(words.content)
    for name, part in parts.items():
        setattr(backend, name, part)
    return Tokenizer(backend, words.config)


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    return train_bpe([story(sentences=60), ENGLISH * 20, *TEXTS, *PROMPTS], vocab_size=600, max_han_run=4)[0]


Serve = Callable[[Tokenizer], Any]


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """llama.cpp with a small model of a tokenizer."""
    pytest.importorskip("xllamacpp", reason="xllamacpp (llama.cpp) is not installed")
    from fangcun.export.with_llama_cpp import start

    def served(words: Tokenizer) -> Any:
        folder = tmp_path_factory.mktemp("served")
        config = resolve_model(ModelConfig(block_size=64, n_layer=1, n_head=2, n_embd=32), words.vocab_size)
        model = Transformer(config)
        initialize(model, 0)
        save_model(model, folder / "model", eos_id=words.eos_id, vocab_size=words.vocab_size)
        words.save(folder / "model")
        return start(str(export_gguf(folder / "model", folder / "out", dtype="f16")[0]), 64, 1)

    yield served


@pytest.fixture(scope="module")
def server(serve: Serve, words: Tokenizer) -> Any:
    return serve(words)


# Line ends, all kinds of spaces, marks, letters that change with case, hanzi beyond the first plane.
RARE = st.sampled_from(["\r\n", "\n \n", "\t", "\u3000", "\xa0", "\u200b", "\u2028", "e\u0301", "'ſ", "'S", "ﬁ", "𠮷", "½", "Ⅳ", "👨\u200d👩\u200d👧"])  # fmt: skip


@settings(max_examples=250, deadline=None)
@given(
    text=st.lists(
        RARE
        | st.text(st.characters(exclude_categories=["Cs", "Cn", "Co"]), max_size=12)
        | st.text("ab 'stldmv01,.!\n\t却说曹操，。", max_size=12),
        min_size=1,
        max_size=5,
    ).map("".join)
)
def test_any_text_has_the_same_ids_in_llama_cpp(text: str, server: Any, words: Tokenizer) -> None:
    from fangcun.export.with_llama_cpp import tokenize

    if text:
        assert tokenize(server, text) == words.encode(text)


def test_special_tokens_in_a_text_are_the_tokens(server: Any, words: Tokenizer) -> None:
    from fangcun.export.with_llama_cpp import tokenize

    text = "却说<|endoftext|>\n<|im_start|>user\n你好<|im_end|> <|endoftext"
    assert tokenize(server, text) == words.encode(text)
    assert words.eos_id in words.encode(text)


@pytest.mark.parametrize(
    ("pattern", "ignore_merges", "name"),
    [(GPT2, False, "gpt-2"), (CL100K, False, "dbrx"), (CL100K, True, "llama-bpe")],
)
def test_other_known_patterns_give_the_same_ids_too(
    pattern: str, ignore_merges: bool, name: str, words: Tokenizer, serve: Serve
) -> None:
    from fangcun.export.with_llama_cpp import tokenize

    other = changed(words, pre_tokenizer=cut(pattern))
    if ignore_merges:
        other.backend.model.ignore_merges = True
        other = Tokenizer(other.backend, words.config)
    assert gguf_vocabulary(other).pre == name
    server = serve(other)
    texts = [*TEXTS, *PROMPTS, ENGLISH, story(sentences=3), "1234567 12 '''s'' I'M"]
    assert [text for text in texts if tokenize(server, text) != other.encode(text)] == []


def test_every_id_has_its_token_and_its_type(words: Tokenizer) -> None:
    backend = tokenizers.Tokenizer.from_str(words.content)
    backend.add_tokens(["<方寸>"])
    vocabulary = gguf_vocabulary(Tokenizer(backend, words.config))
    assert len(vocabulary.tokens) == len(vocabulary.types) == words.vocab_size + 1
    assert all(backend.token_to_id(token) == index for index, token in enumerate(vocabulary.tokens))
    assert vocabulary.types[-1] == USER_DEFINED
    assert {index for index, kind in enumerate(vocabulary.types) if kind == CONTROL} == words.special_ids
    assert vocabulary.types.count(NORMAL) == words.vocab_size - len(words.special_ids)


def test_character_tokenizers_are_refused_with_the_reason() -> None:
    with pytest.raises(FangcunError, match=r"single byte or character.*--to hf"):
        gguf_vocabulary(train_char([story(sentences=5)]))


@pytest.mark.parametrize(
    ("part", "value", "reason"),
    [
        ("normalizer", normalizers.Lowercase(), "changes text before it cuts it"),
        ("pre_tokenizer", pre_tokenizers.Whitespace(), "not in bytes"),
        ("pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True), "space in front"),
        ("pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False), "none of those known"),
        ("pre_tokenizer", cut(r"\w+|\s"), "none of those known"),
    ],
)
def test_tokenizers_that_llama_cpp_would_read_differently_are_refused(
    part: str, value: Any, reason: str, words: Tokenizer
) -> None:
    with pytest.raises(FangcunError, match=reason):
        gguf_vocabulary(changed(words, **{part: value}))


def test_composing_accents_is_told(words: Tokenizer) -> None:
    notes = gguf_vocabulary(changed(words, normalizer=normalizers.NFC())).notes
    assert len(notes) == 1 and "NFC" in notes[0]


@pytest.mark.parametrize("name", ["qwen3", "minimind", "gpt2", "qwen2"])
def test_well_known_tokenizers_are_recognised(name: str, shared_data: Path) -> None:
    from fangcun.tokenizer import import_tokenizer

    if name == "qwen2":
        pytest.importorskip("tiktoken")
    tokenizer = import_tokenizer(shared_data / "tokenizers" / name).tokenizer
    expected = "qwen2" if name.startswith("qwen") else "gpt-2"
    assert gguf_vocabulary(tokenizer).pre == expected
