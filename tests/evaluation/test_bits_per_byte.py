"""Evaluation: the numbers are those of a loop token by token, the same every time and at every batch size."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fangcun.artifacts import Manifest, write_artifact
from fangcun.config.model import ModelConfig
from fangcun.config.resolve import resolve_model
from fangcun.errors import FangcunError
from fangcun.evaluation import Evaluation, bits_per_byte, evaluate_windows
from fangcun.model import Transformer, initialize
from fangcun.tokens import ShardWriter, TokenSplit, fixed_windows, open_split

VOCAB, BLOCK = 50, 16
TOKEN_BYTES = [0, *(1 + i % 4 for i in range(VOCAB - 1))]
"""Id 0 ends a document and stands for no byte."""


@pytest.fixture
def make_split(tmp_path: Path) -> Callable[..., TokenSplit]:
    def make(n_tokens: int, *, comparable: bool = True, extra_bytes: int = 0, seed: int = 0) -> TokenSplit:
        """One document of random ids and its end; `extra_bytes`: text bytes that token_bytes does not account for."""
        ids = np.random.default_rng(seed).integers(1, VOCAB, n_tokens)
        if n_tokens:
            ids[-1] = 0
        n_bytes = sum(TOKEN_BYTES[i] for i in ids) + extra_bytes
        manifest = Manifest(
            "tokens", settings={"dtype": "uint16", "vocab_size": VOCAB, "eos_id": 0, "tokenizer_fingerprint": "x"}
        )
        folder = tmp_path / f"tokens-{n_tokens}-{comparable}-{seed}"
        with write_artifact(folder, manifest) as temporary:
            for split in ("train", "val"):
                with ShardWriter(temporary, split, "uint16", 10**6) as shards:
                    if n_tokens:
                        shards.add(ids, np.array([n_tokens]), np.array([n_bytes]))
                counts = {"tokens": n_tokens, "documents": shards.documents, "bytes": shards.bytes, "unk_tokens": 0}
                manifest.counts[split] = counts | {
                    "comparable": comparable,
                    "not_comparable_because": None if comparable else "<unk>",
                }
        return open_split(folder, "val")

    return make


def make_model(**changes: object) -> Transformer:
    shape = {"block_size": BLOCK, "n_layer": 2, "n_head": 2, "n_embd": 16, "padding_multiple": 1} | changes
    model = Transformer(resolve_model(ModelConfig(**shape), VOCAB))  # type: ignore[arg-type]
    initialize(model, 1)
    return model


def evaluate(model: Transformer, split: TokenSplit, **changes: object) -> Evaluation:
    arguments = {
        "windows": fixed_windows(split, BLOCK),
        "batch_size": 3,
        "token_bytes": torch.tensor(TOKEN_BYTES),
    } | changes
    return evaluate_windows(model, split, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("n_tokens", [2, 9, 17, 18, 33, 150])
def test_loss_and_bits_are_those_of_a_loop_token_by_token(n_tokens: int, make_split: Callable[..., TokenSplit]) -> None:
    model, split = make_model(), make_split(n_tokens)
    stream = split.read(0, n_tokens).tolist()
    nats, predicted = 0.0, []
    for window in fixed_windows(split, BLOCK):
        for target in range(window.first_target, window.last_target + 1):
            with torch.no_grad():
                logits = model(torch.tensor([stream[window.start : target]]))[0, -1]
            nats -= float(logits.double().log_softmax(-1)[stream[target]])
            predicted.append(target)
    assert predicted == list(range(1, n_tokens))
    n_bytes = sum(TOKEN_BYTES[i] for i in stream[1:])
    result = evaluate(model, split)
    assert (result.n_tokens, result.n_bytes) == (n_tokens - 1, n_bytes)
    assert result.loss == pytest.approx(nats / (n_tokens - 1), rel=1e-5)
    assert result.perplexity == pytest.approx(math.exp(nats / (n_tokens - 1)), rel=1e-4)
    if n_bytes:
        assert result.bits_per_byte == pytest.approx(nats / math.log(2) / n_bytes, rel=1e-5)
        assert result.comparable


def test_a_uniform_model_needs_log2_of_the_vocabulary_a_token(make_split: Callable[..., TokenSplit]) -> None:
    model, split = make_model(), make_split(100)
    torch.nn.init.zeros_(model.head_weight)
    result = evaluate(model, split)
    assert result.loss == pytest.approx(math.log(VOCAB), rel=1e-6)
    assert result.perplexity == pytest.approx(VOCAB, rel=1e-5)
    assert result.bits_per_byte == pytest.approx(math.log2(VOCAB) * result.n_tokens / result.n_bytes, rel=1e-6)


def test_the_result_is_the_same_every_time_and_at_every_batch_size(
    make_split: Callable[..., TokenSplit], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, split = make_model(dropout=0.3).train(), make_split(333)
    first = evaluate(model, split)
    assert evaluate(model, split) == first
    for batch_size in (1, 2, 7, 1000):
        other = evaluate(model, split, batch_size=batch_size)
        assert other.loss == pytest.approx(first.loss, rel=1e-6)
        assert other.n_bytes == first.n_bytes
    monkeypatch.setattr(bits_per_byte, "LOGITS_AT_ONCE", 5 * VOCAB)
    assert evaluate(model, split).loss == pytest.approx(first.loss, rel=1e-6)


def test_windows_of_different_lengths_are_allowed_in_any_order(make_split: Callable[..., TokenSplit]) -> None:
    model, split = make_model(), make_split(120)
    windows = [*fixed_windows(split, BLOCK, 3), *fixed_windows(split, 5, 4)]
    together = evaluate(model, split, windows=windows)
    apart = [evaluate(model, split, windows=part) for part in (windows[:3], windows[3:])]
    assert together.loss == pytest.approx(sum(a.loss * a.n_tokens for a in apart) / together.n_tokens, rel=1e-6)
    assert evaluate(model, split, windows=windows[::-1]).loss == pytest.approx(together.loss, rel=1e-6)
    assert together.n_bytes == sum(a.n_bytes or 0 for a in apart)


def test_the_whole_split_counts_the_bytes_of_its_text_and_a_part_those_of_its_tokens(
    make_split: Callable[..., TokenSplit],
) -> None:
    model, split = make_model(), make_split(100, extra_bytes=40)
    first_bytes = TOKEN_BYTES[int(split.read(0, 1)[0])]
    assert evaluate(model, split).n_bytes == split.total_bytes - first_bytes
    windows = fixed_windows(split, BLOCK)[1:3]
    ids = split.read(windows[0].first_target, windows[1].last_target + 1)
    assert evaluate(model, split, windows=windows).n_bytes == sum(TOKEN_BYTES[i] for i in ids)


def test_bits_that_cannot_be_compared_say_so(make_split: Callable[..., TokenSplit]) -> None:
    result = evaluate(make_model(), make_split(60, comparable=False))
    assert result.bits_per_byte is not None
    assert not result.comparable


def test_without_token_bytes_there_are_no_bits_per_byte(make_split: Callable[..., TokenSplit]) -> None:
    split = make_split(60)
    result = evaluate(make_model(), split, token_bytes=None)
    assert (result.bits_per_byte, result.n_bytes, result.comparable) == (None, None, False)
    assert result.loss == evaluate(make_model(), split).loss


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(training: bool, make_split: Callable[..., TokenSplit]) -> None:
    model = make_model(dropout=0.5).train(training)
    evaluate(model, make_split(40))
    assert all(module.training is training for module in model.modules())
    model(torch.tensor([[1, 2, 3]])).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_autocast_reaches_the_forward_pass_only(make_split: Callable[..., TokenSplit]) -> None:
    model, split = make_model(), make_split(200)
    plain = evaluate(model, split)
    mixed = evaluate(model, split, autocast=torch.autocast("cpu", dtype=torch.bfloat16))
    assert mixed.loss != plain.loss
    assert mixed.loss == pytest.approx(plain.loss, abs=0.02)
    assert (
        dataclasses.replace(mixed, loss=plain.loss, perplexity=plain.perplexity, bits_per_byte=plain.bits_per_byte)
        == plain
    )
    assert evaluate(model, split, autocast=contextlib.nullcontext()) == plain


def test_what_does_not_fit_together_is_refused(make_split: Callable[..., TokenSplit]) -> None:
    model, split = make_model(), make_split(60)
    with pytest.raises(FangcunError, match="nothing to evaluate on"):
        evaluate(model, make_split(0), windows=[])
    with pytest.raises(FangcunError, match="block_size = 16"):
        evaluate(model, split, windows=fixed_windows(split, 20))
    with pytest.raises(FangcunError, match="token_bytes has 3 entries"):
        evaluate(model, split, token_bytes=[1, 2, 3])
    with pytest.raises(FangcunError, match="batch_size is 0"):
        evaluate(model, split, batch_size=0)
    model.config.vocab_size = 8
    small = Transformer(resolve_model(dataclasses.replace(model.config, padded_vocab_size=None), 8))
    with pytest.raises(FangcunError, match="50 ids"):
        evaluate(small, split)
