"""Small text and tokenizers that the tests of this room share."""

from __future__ import annotations

import pytest
from tokenizer_text import TEXT

from fangcun.tokenizer import Tokenizer, train_bpe, train_char


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return [TEXT] * 20


@pytest.fixture(scope="session")
def bpe(texts: list[str]) -> Tokenizer:
    return train_bpe(texts, vocab_size=500, max_han_run=4)[0]


@pytest.fixture(scope="session")
def char() -> Tokenizer:
    return train_char([TEXT])


@pytest.fixture(scope="session")
def sentencepiece_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A BPE model with byte fallback as Llama's, and a unigram model that normalises as Chinese-LLaMA's."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = tmp_path_factory.mktemp("sentencepiece")
    source = folder / "text.txt"
    source.write_text(TEXT * 10, encoding="utf-8")
    common = {"input": str(source), "minloglevel": 2, "hard_vocab_limit": False, "num_threads": 1}
    sentencepiece.SentencePieceTrainer.train(
        **common, model_prefix=str(folder / "bpe"), model_type="bpe", vocab_size=500, byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, allow_whitespace_only_pieces=True,
    )  # fmt: skip
    sentencepiece.SentencePieceTrainer.train(
        **common, model_prefix=str(folder / "unigram"), model_type="unigram", vocab_size=250,
    )  # fmt: skip
    return {kind: str(folder / f"{kind}.model") for kind in ("bpe", "unigram")}
