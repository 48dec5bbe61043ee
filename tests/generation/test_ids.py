"""The engine: with cache as without, past block_size by the stated rule, and without a trace in the model."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable

import pytest
import torch

from fangcun.errors import FangcunError
from fangcun.generation.ids import generate_ids, stream_ids
from fangcun.generation.sampling import SamplingSettings
from fangcun.model import Transformer, cross_entropy_sum

GREEDY = {"temperature": 0.0, "end_id": 256}
FAMILIES = ["gpt2", "llama", "mistral", "qwen2", "qwen3"]


def naive_greedy(model: Transformer, prompt: list[int], count: int, vocab_size: int) -> list[int]:
    """Reference without a cache: one whole forward pass a token, over the context that the rule leaves."""
    block_size, written = model.config.block_size, []
    context = prompt[-block_size:]
    for _ in range(count):
        with torch.no_grad():
            logits = model(torch.tensor([context]))[0, -1, :vocab_size]
        written.append(int(logits.argmax()))
        context = [*context, written[-1]]
        if len(context) > block_size:
            context = context[-max(1, block_size // 2) :]
    return written


@pytest.mark.parametrize("family", FAMILIES)
def test_cached_decoding_is_the_plain_forward_pass_far_past_block_size(
    family: str, make_model: Callable[..., Transformer]
) -> None:
    model = make_model(family, block_size=16)
    expected = naive_greedy(model, [5, 6, 7], 60, vocab_size=256)
    assert len(set(expected)) > 5  # not one id repeated, which would prove little
    assert generate_ids(model, [5, 6, 7], vocab_size=256, max_new_tokens=60, **GREEDY) == expected


@pytest.mark.parametrize("block_size", [1, 2, 3])
def test_the_smallest_contexts_work(block_size: int, make_model: Callable[..., Transformer]) -> None:
    model = make_model("qwen3", block_size=block_size)
    assert generate_ids(model, [9], vocab_size=256, max_new_tokens=9, **GREEDY) == naive_greedy(model, [9], 9, 256)


def test_positions_stay_below_block_size(
    make_model: Callable[..., Transformer], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model("gpt2", block_size=8)  # a learned position table: reading past it would fail
    ends = []
    plain = model.hidden
    monkeypatch.setattr(
        model, "hidden", lambda ids, cache: (ends.append(cache.length + ids.shape[1]), plain(ids, cache))[1]
    )
    generate_ids(model, [1, 2], vocab_size=256, max_new_tokens=40, **GREEDY)
    # 2..8, then again and again from half of the context up to all of it.
    assert ends == [*range(2, 9), *([4, 5, 6, 7, 8] * 7)[:33]]


def test_a_prompt_longer_than_block_size_keeps_its_end_and_warns(make_model: Callable[..., Transformer]) -> None:
    model = make_model("llama", block_size=8)
    prompt = list(range(30))
    with pytest.warns(UserWarning, match="last 8"):
        long = generate_ids(model, prompt, vocab_size=256, max_new_tokens=12, **GREEDY)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert generate_ids(model, prompt[-8:], vocab_size=256, max_new_tokens=12, **GREEDY) == long


def test_an_empty_prompt_starts_from_the_end_of_document(make_model: Callable[..., Transformer]) -> None:
    model = make_model("qwen2")
    from_nothing = generate_ids(model, [], vocab_size=256, max_new_tokens=6, **GREEDY)
    assert from_nothing == generate_ids(model, [256], vocab_size=256, max_new_tokens=6, **GREEDY)


def test_the_end_of_document_ends_the_text_and_is_not_part_of_it(make_model: Callable[..., Transformer]) -> None:
    model = make_model("qwen3")
    free = generate_ids(model, [1], vocab_size=256, max_new_tokens=20, **GREEDY)
    end = free[7]
    cut = free[: free.index(end)]
    assert generate_ids(model, [1], vocab_size=256, max_new_tokens=20, temperature=0.0, end_id=end) == cut
    assert (
        generate_ids(model, [1], vocab_size=256, max_new_tokens=20, temperature=0.0, end_id=256, stop_ids=[end]) == cut
    )


def test_max_new_tokens_is_kept_and_zero_runs_no_model(
    make_model: Callable[..., Transformer], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model("qwen3")
    assert len(generate_ids(model, [1], vocab_size=256, max_new_tokens=5, **GREEDY)) == 5
    monkeypatch.setattr(model, "hidden", None)
    assert generate_ids(model, [1], vocab_size=256, max_new_tokens=0, **GREEDY) == []


def test_on_token_sees_each_id_and_may_end_the_text(make_model: Callable[..., Transformer]) -> None:
    model, seen = make_model("qwen3"), []
    whole = generate_ids(model, [3], vocab_size=256, max_new_tokens=8, on_token=seen.append, **GREEDY)
    assert seen == whole
    assert (
        generate_ids(model, [3], vocab_size=256, max_new_tokens=8, on_token=lambda i: i == whole[2], **GREEDY)
        == whole[: whole.index(whole[2]) + 1]
    )


def test_a_seed_gives_one_text_and_leaves_the_global_generator_alone(make_model: Callable[..., Transformer]) -> None:
    model = make_model("qwen3")
    state = torch.get_rng_state()
    texts = [
        generate_ids(model, [1, 2], vocab_size=257, end_id=256, max_new_tokens=20, temperature=1.0, seed=seed)
        for seed in (4, 4, 5, None, None)
    ]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]
    assert texts[3] != texts[4]
    assert torch.equal(torch.get_rng_state(), state)


def test_ids_beyond_the_tokenizer_are_never_written(make_model: Callable[..., Transformer]) -> None:
    model = make_model("llama")
    for temperature in (0.0, 3.0):
        ids = generate_ids(
            model, [1], vocab_size=20, end_id=19, max_new_tokens=60, temperature=temperature, top_k=None, seed=1
        )
        assert max(ids) < 19


def test_the_penalty_covers_prompt_and_written_ids(make_model: Callable[..., Transformer]) -> None:
    model = make_model("qwen3", block_size=256)
    prompt = list(range(50))
    ids = generate_ids(model, prompt, vocab_size=256, max_new_tokens=150, repetition_penalty=1e6, **GREEDY)
    # With so strong a penalty an id returns only when nothing new has a positive logit; the first ones are all new.
    assert len({*ids[:40], *prompt}) == 90


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_model_comes_back_even_from_an_abandoned_stream(
    training: bool, make_model: Callable[..., Transformer]
) -> None:
    model = make_model("qwen3", dropout=0.5, attention_dropout=0.5).train(training)
    stream = stream_ids(model, [1], SamplingSettings(0.0), vocab_size=256, end_id=256, max_new_tokens=9)
    with contextlib.closing(stream):
        next(stream)
        assert not model.training
    assert all(module.training is training for module in model.modules())


def test_dropout_is_off_while_generating_from_a_model_in_training(make_model: Callable[..., Transformer]) -> None:
    model = make_model("qwen3", dropout=0.5)
    still = generate_ids(model, [1], vocab_size=256, max_new_tokens=9, **GREEDY)
    assert generate_ids(model.train(), [1], vocab_size=256, max_new_tokens=9, **GREEDY) == still


@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
def test_a_model_trains_on_after_it_has_generated(family: str, make_model: Callable[..., Transformer]) -> None:
    model = make_model(family).train()
    generate_ids(model, [1], vocab_size=256, max_new_tokens=3, **GREEDY)
    total, _ = cross_entropy_sum(model(torch.tensor([[1, 2, 3]])), torch.tensor([[2, 3, 4]]))
    total.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_generation_ignores_an_autocast_that_surrounds_it(make_model: Callable[..., Transformer]) -> None:
    model = make_model("qwen3")
    plain = generate_ids(model, [1], vocab_size=256, max_new_tokens=20, **GREEDY)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert generate_ids(model, [1], vocab_size=256, max_new_tokens=20, **GREEDY) == plain


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("max_new_tokens", -1),
        ("max_new_tokens", 2.0),
        ("seed", "x"),
        ("seed", 2**64),
        ("temperature", -1),
        ("top_k", 0),
        ("top_p", 0.0),
    ],
)
def test_wrong_arguments_are_named(argument: str, value: object, make_model: Callable[..., Transformer]) -> None:
    with pytest.raises(FangcunError, match=argument):
        generate_ids(make_model(), [1], vocab_size=256, end_id=256, **{argument: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("index", [-1, 257])
def test_a_prompt_with_unknown_ids_is_refused(index: int, make_model: Callable[..., Transformer]) -> None:
    with pytest.raises(FangcunError, match=f"id {index}"):
        generate_ids(make_model(), [1, index], vocab_size=256, **GREEDY)
