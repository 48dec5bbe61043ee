"""With documents, a window of several gives what each of them gives alone."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from shapes import GPT2, random_ids, random_model, small_config

from fangcun.model import Transformer, attention_logit_max, find_documents, recompute_blocks
from fangcun.model.attention import Attention
from fangcun.model.document_mask import Documents
from fangcun.training import Objective

END = 7
SHAPES: dict[str, dict[str, Any]] = {
    "rope": {},
    "half-rope": {"rotary_percentage": 0.5, "exportable": False},
    "learned": {**GPT2, "family": "gpt2", "n_query_groups": None},
    "ngrams": {"ngram_rows": 500, "ngram_length": 3, "exportable": False},
}
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))


def windows(config: Any, ends: tuple[tuple[int, ...], ...] = ((4, 5, 13), (0, 23))) -> torch.Tensor:
    """Windows whose end-of-document tokens are at `ends`, and nowhere else."""
    ids = random_ids(config, len(ends))
    ids[ids == END] += 1
    for row, places in enumerate(ends):
        ids[row, list(places)] = END
    return ids


def pieces(row: torch.Tensor) -> list[slice]:
    """The documents of one window."""
    bounds = [0, *(i + 1 for i in range(len(row)) if row[i] == END), len(row)]
    return [slice(a, b) for a, b in itertools.pairwise(bounds) if a < b]


@given(st.lists(st.lists(st.sampled_from([3, END, 9]), min_size=12, max_size=12), min_size=1, max_size=3))
def test_documents_are_those_of_a_walk_from_token_to_token(rows: list[list[int]]) -> None:
    found = find_documents(torch.tensor(rows), END)
    for number, row in enumerate(rows):
        document = place = 0
        walked = []
        for id in row:
            walked.append((document, place))
            document, place = (document + 1, 0) if id == END else (document, place + 1)
        assert list(zip(found.numbers[number].tolist(), found.positions[number].tolist(), strict=True)) == walked
        for q in range(len(row)):
            seen = [k for k in range(len(row)) if k <= q and walked[k][0] == walked[q][0]]
            assert found.mask[number, 0, q].nonzero().flatten().tolist() == seen


@shapes
def test_hidden_states_are_those_of_each_document_alone(shape: dict[str, Any]) -> None:
    config = small_config(**shape)
    model, ids = random_model(config), windows(config)
    together = model.hidden(ids, documents=find_documents(ids, END))
    for row, states in zip(ids, together, strict=True):
        for piece in pieces(row):
            torch.testing.assert_close(states[piece], model.hidden(row[None, piece])[0], atol=2e-5, rtol=1e-5)
    assert not torch.allclose(together, model.hidden(ids), atol=1e-3)


@shapes
def test_loss_and_gradients_are_the_sum_of_each_document_alone(shape: dict[str, Any]) -> None:
    config = small_config(**shape)
    model, ids = random_model(config), windows(config)
    targets = ids.roll(-1, 1)
    targets[:, :2] = -100
    together = Objective(model, document_end=END)(ids, targets)
    alone = torch.stack(
        [
            Objective(model)(row[None, piece], wanted[None, piece])
            for row, wanted in zip(ids, targets, strict=True)
            for piece in pieces(row)
        ]
    ).sum()
    torch.testing.assert_close(together, alone)
    parameters = list(model.parameters())
    for a, b in zip(torch.autograd.grad(together, parameters), torch.autograd.grad(alone, parameters), strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_attention_is_that_of_a_mask_written_by_hand() -> None:
    config = small_config(qk_norm=False, family="mistral")
    layer = random_model(config).blocks[0].attention
    assert isinstance(layer, Attention)
    ids = windows(config)
    x = torch.randn(*ids.shape, config.n_embd)
    query, key, value = layer.project(x)
    key, value = (t.repeat_interleave(layer.heads // layer.groups, dim=1) for t in (key, value))
    logits = query @ key.transpose(-1, -2) / math.sqrt(layer.head_size)
    for b, row in enumerate(ids):
        for q in range(len(row)):
            for k in range(len(row)):
                if k > q or (row[k:q] == END).any():  # an end between the two, the key's own token among them
                    logits[b, :, q, k] = -math.inf
    expected = layer.output((logits.softmax(-1) @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(layer(x, documents=find_documents(ids, END)), expected)


def test_a_window_of_one_document_is_as_without() -> None:
    config = small_config()
    model = random_model(config)
    ids = windows(config, ends=((23,), ()))
    torch.testing.assert_close(model.hidden(ids, documents=find_documents(ids, END)), model.hidden(ids))


def test_recomputed_equals_kept() -> None:
    config = small_config(tie_embeddings=False)
    model, ids = random_model(config), windows(config)
    objective = Objective(model, document_end=END)
    results = []
    for _ in range(2):
        loss = objective(ids, ids.roll(-1, 1))
        results.append([loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))])
        recompute_blocks(model)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_the_probe_counts_pairs_of_one_document_alone() -> None:
    config = small_config()
    model, ids = random_model(config), windows(config)

    def with_documents(ids: torch.Tensor) -> torch.Tensor:
        return model.hidden(ids, documents=find_documents(ids, END))

    alone = max(attention_logit_max(model, row[None, piece]) for row in ids for piece in pieces(row))
    assert attention_logit_max(model, ids, forward=with_documents) == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("shape", [SHAPES["rope"], SHAPES["learned"]], ids=["rope", "learned"])
def test_the_forward_pass_with_documents_is_one_graph(shape: dict[str, Any]) -> None:
    config = small_config(**shape)
    model, ids = random_model(config), windows(config)

    def forward(model: Transformer, ids: torch.Tensor) -> torch.Tensor:
        return model.hidden(ids, documents=find_documents(ids, END))

    compiled = torch.compile(forward, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(model, ids), forward(model, ids))


def test_attention_dropout_is_drawn_under_the_mask_too() -> None:
    query = torch.randn(1, 1, 6, 4)
    documents: Documents = find_documents(torch.tensor([[1, END, 1, 1, 1, 1]]), END)
    torch.manual_seed(0)
    assert not torch.equal(documents.attend(query, query, query, 0.5), documents.attend(query, query, query, 0.0))
