"""Bits per byte of texts: each token predicted once, exact sums, by script, whatever the batches."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import language_model, log_probabilities

from fangcun.errors import FangcunError
from fangcun.evaluation.scripts import SCRIPTS, script_of_bytes, spread
from fangcun.evaluation.text import measure_texts, piece_bytes, windows

LM = language_model()


def nats_of(text: str) -> float:
    """The plain sum over a document that fits the block."""
    ids = LM.tokenizer.encode_documents([text])[0]
    found = log_probabilities(LM.model, [LM.tokenizer.eos_id, *ids][:-1])
    return -float(found[torch.arange(len(ids)), torch.tensor(ids)].sum())


@given(n=st.integers(0, 300), block_size=st.integers(1, 40), data=st.data())
def test_windows_predict_each_token_once_with_enough_context(n: int, block_size: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, block_size))
    predicted = []
    for first, target, end in windows(n, block_size, stride):
        assert 0 < end - first <= block_size
        for each in range(target, end + 1):
            assert each - first >= min(each, block_size - stride + 1)  # ids read before it, the start token among them
        predicted += range(target, end + 1)
    assert predicted == list(range(1, n + 1))


def test_a_short_document_is_the_plain_sum() -> None:
    text = "却说曹操 Ab1"
    found = measure_texts(LM, [("a", text)])
    assert found.total.bytes == len(text.encode())
    assert found.total.nats == pytest.approx(nats_of(text), rel=1e-6)
    assert found.total.bits_per_byte == pytest.approx(nats_of(text) / math.log(2) / len(text.encode()), rel=1e-6)


def test_documents_stand_apart_and_sources_sum_to_the_whole() -> None:
    texts = [("a", "甲乙丙"), ("b", "xyz"), ("a", "丁"), ("c", "")]
    found = measure_texts(LM, texts)
    assert list(found.sources) == ["a", "b", "c"]
    assert found.sources["a"].nats == pytest.approx(nats_of("甲乙丙") + nats_of("丁"), rel=1e-6)
    assert found.sources["b"].nats == pytest.approx(nats_of("xyz"), rel=1e-6)
    assert found.total.nats == pytest.approx(sum(s.nats for s in found.sources.values()), rel=1e-12)
    assert (found.total.documents, found.sources["c"].bits_per_byte) == (4, None)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.text(max_size=60), min_size=1, max_size=6).filter(any), st.sampled_from([1, 4, 32]))
def test_bits_do_not_depend_on_the_batches_and_fall_on_scripts_whole(texts: list[str], stride: int) -> None:
    documents = [("x", text.encode("utf-8", "replace").decode()) for text in texts]
    one = measure_texts(LM, documents, stride=stride, batch_tokens=1)
    many = measure_texts(LM, documents, stride=stride, batch_tokens=4096)
    assert many.total.nats == pytest.approx(one.total.nats, rel=1e-6)
    assert many.total.unfaithful == 0
    assert float(many.total.script_bits.sum()) == pytest.approx(many.total.nats / math.log(2), rel=1e-9)
    assert int(many.total.script_bytes.sum()) == many.total.bytes


def test_more_context_is_the_sum_of_windows_by_hand() -> None:
    text = "abcdefghij" * 7
    ids = [LM.tokenizer.eos_id, *LM.tokenizer.encode(text)]
    total = 0.0
    for first, target, end in windows(len(ids) - 1, 32, 8):
        found = log_probabilities(LM.model, ids[first:end])
        total -= sum(float(found[each - 1 - first, ids[each]]) for each in range(target, end + 1))
    assert measure_texts(LM, [("x", text)], stride=8).total.nats == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("stride", [0, 33, -1])
def test_a_stride_that_leaves_tokens_out_is_refused(stride: int) -> None:
    with pytest.raises(FangcunError, match=f"stride is {stride}"):
        measure_texts(LM, [("x", "abc")], stride=stride)


def test_nothing_to_measure_is_said() -> None:
    with pytest.raises(FangcunError, match="no text to measure"):
        measure_texts(LM, [("x", "")])


def test_scripts_are_told_by_the_character() -> None:
    text = "汉A1é〇，𠀀ｂか"
    names = [SCRIPTS[i] for i in script_of_bytes(text)]
    expected = ["han", "latin", "other", "latin", "han", "other", "han", "latin", "other"]
    assert names == [name for c, name in zip(text, expected, strict=True) for _ in c.encode()]


def test_bits_of_a_token_spread_over_its_bytes() -> None:
    scripts = script_of_bytes("汉a1")  # three bytes, one, one
    found = spread(np.array([2.0, 3.0, 1.0]), np.array([2, 2, 1]), scripts)
    assert found.tolist() == pytest.approx([2.0 + 1.5, 1.5, 1.0])
    # A token without a byte counts where the next one does.
    assert spread(np.array([5.0, 1.0]), np.array([0, 5]), scripts).tolist() == pytest.approx([5.6, 0.2, 0.2])


def test_what_ids_do_not_give_back_is_not_comparable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(LM.tokenizer), "pieces", lambda self, ids: [b"?" for _ in ids])
    found = measure_texts(LM, [("x", "abc")])
    assert found.total.record()["comparable"] is False
    assert found.total.record()["scripts"] == {}
    assert found.total.bits_per_byte is not None


def test_pieces_of_sentencepiece_are_those_of_the_text(shared_data) -> None:
    from fangcun.tokenizer import import_tokenizer

    tokenizer = import_tokenizer(shared_data / "tokenizers" / "chatglm").tokenizer
    for text in ("人工智能 is fun。\n𠀀龘", "a", ""):
        ids = tokenizer.encode_documents([text])[0]
        sizes = piece_bytes(tokenizer, text, ids)
        assert sizes is not None
        assert sizes.sum() == len(text.encode())
