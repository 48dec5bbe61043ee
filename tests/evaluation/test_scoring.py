"""Continuations: trees behind shared prefixes give what each pair gives by itself, read token by token."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import SHAPES, log_probabilities, make_model

from fangcun.evaluation.continuations import Pair, score_continuations
from fangcun.evaluation.scoring import Row, log_probability, predict_rows
from fangcun.evaluation.shared_prefix import cluster, read_prefix

MODELS = {shape: make_model(shape) for shape in SHAPES}
IDS = st.integers(0, 257)


def reference(shape: str, pair: Pair) -> tuple[float, bool]:
    context, continuation = map(list, pair)
    model, block_size = MODELS[shape], MODELS[shape].config.block_size
    assert len(continuation) <= block_size
    text = (context + continuation)[-(block_size + 1) :]
    found = log_probabilities(model, text[:-1])[-len(continuation) :]
    rows = torch.arange(len(continuation))
    total = float(found[rows, torch.tensor(continuation)].sum())
    return total, bool((found.argmax(-1) == torch.tensor(continuation)).all())


@st.composite
def exams(draw: st.DrawFn) -> list[Pair]:
    """Questions with a common beginning, or none, of a few choices each; some too long for the block."""
    beginning = draw(st.lists(IDS, max_size=20))
    pairs: list[Pair] = []
    for _ in range(draw(st.integers(1, 5))):
        context = beginning + draw(st.lists(IDS, min_size=1, max_size=16))
        pairs += [
            (context, choice)
            for choice in draw(st.lists(st.lists(IDS, min_size=1, max_size=6), min_size=1, max_size=4))
        ]
    return draw(st.permutations(pairs))


@pytest.mark.parametrize("shape", list(SHAPES))
@settings(max_examples=25, deadline=None)
@given(pairs=exams(), batch_tokens=st.sampled_from([1, 64, 2048]))
def test_shared_scoring_is_scoring_by_itself(shape: str, pairs: list[Pair], batch_tokens: int) -> None:
    expected = [reference(shape, pair) for pair in pairs]
    for share in (True, False):
        scores = score_continuations(MODELS[shape], pairs, greedy=True, share=share, batch_tokens=batch_tokens)
        for score, (total, greedy) in zip(scores, expected, strict=True):
            assert score.log_probability == pytest.approx(total, abs=1e-4)
            assert score.greedy == greedy


@pytest.mark.parametrize("shape", list(SHAPES))
def test_a_long_prefix_is_read_once_and_changes_nothing(shape: str) -> None:
    model = make_model(shape, block_size=96)
    draw = torch.Generator().manual_seed(1)
    beginning = torch.randint(258, (50,), generator=draw).tolist()
    pairs = [
        (beginning + torch.randint(258, (n + 3,), generator=draw).tolist(), [7 * n + k] * (1 + k))
        for n in range(6)
        for k in range(3)
    ]
    contexts = [context for context, _ in pairs]
    if model.ngrams is None:
        assert cluster(contexts) == [(50, list(range(18)))]
        assert read_prefix(model, beginning).length == 50
    shared = score_continuations(model, pairs)
    plain = score_continuations(model, pairs, share=False)
    assert [s.log_probability for s in shared] == pytest.approx([s.log_probability for s in plain], abs=1e-4)


@pytest.mark.parametrize("shape", ["qwen3", "softcap"])
def test_relative_scores_differ_by_what_a_context_has_in_common(shape: str) -> None:
    pairs: list[Pair] = [([5, 6, n], [choice]) for n in range(3) for choice in (1, 2, 3, 4)]
    relative = score_continuations(MODELS[shape], pairs, relative=True)
    full = score_continuations(MODELS[shape], pairs)
    for n in range(0, 12, 4):
        gaps = [relative[n + k].log_probability - full[n + k].log_probability for k in range(4)]
        assert gaps == pytest.approx([gaps[0]] * 4, abs=1e-5)


def test_a_continuation_longer_than_the_block_is_predicted_in_pieces() -> None:
    model = MODELS["qwen3"]
    continuation = [(37 * n) % 258 for n in range(75)]
    (score,) = score_continuations(model, [([3], continuation)])
    text, total = [3, *continuation], 0.0
    for first in (0, 32, 64):
        end = min(first + 32, 75)
        window = text[max(0, end - 32) : end]
        found = log_probabilities(model, window)[-(end - first) :]
        total += float(found[torch.arange(end - first), torch.tensor(text[first + 1 : end + 1])].sum())
    assert score.log_probability == pytest.approx(total, abs=1e-3)
    assert score_continuations(model, [([3], [])])[0].log_probability == 0.0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=80), min_size=1, max_size=8), st.integers(1, 40))
def test_clusters_hold_every_text_once_and_share_what_they_say(texts: list[list[int]], shortest: int) -> None:
    found = cluster(texts, shortest)
    assert sorted(i for _, members in found for i in members) == list(range(len(texts)))
    for common, members in found:
        assert common == 0 or common >= shortest
        assert all(texts[i][:common] == texts[members[0]][:common] for i in members)
        assert all(len(texts[i]) > common for i in members)


def test_reading_leaves_the_model_as_it_was() -> None:
    model = make_model("qwen3", dropout=0.5).train()
    first = predict_rows(model, [Row([1, 2, 3], [4], [2])], log_probability)[0]
    assert (predict_rows(model, [Row([1, 2, 3], [4], [2])], log_probability)[0] == first).all()
    assert model.training
    model(torch.tensor([[1, 2]])).sum().backward()


def test_bf16_weights_are_read_in_bf16() -> None:
    model = make_model("qwen3")
    exact = score_continuations(model, [([1, 2], [3, 4])])[0].log_probability
    rough = score_continuations(model.to(torch.bfloat16), [([1, 2], [3, 4])])[0].log_probability
    assert rough != exact
    assert rough == pytest.approx(exact, rel=0.1)
