"""Reading text in pieces over the cache gives what reading it at once gives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shapes import FAMILIES, random_config, random_ids, random_model, small_config

from fangcun.errors import FangcunError
from fangcun.model import KVCache, Transformer


@torch.no_grad()
def in_pieces(model: Transformer, ids: torch.Tensor, pieces: list[int], cache: KVCache) -> torch.Tensor:
    parts = [model(part, cache) for part in ids.split(pieces, dim=1)]
    return torch.cat(parts, dim=1)


def assert_same(got: torch.Tensor, wanted: torch.Tensor) -> None:
    """Equal but for float32 rounding: within 1e-5 of the largest logit."""
    scale = max(1.0, float(wanted.detach().abs().max()))
    torch.testing.assert_close(got, wanted, atol=1e-5 * scale, rtol=0)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("family", FAMILIES)
def test_prefill_then_single_steps_equal_one_forward(family: str, seed: int) -> None:
    config = random_config(family, seed)
    model, ids = random_model(config, seed), random_ids(config, seed=seed)
    prefill = config.block_size // 2
    cache = KVCache(config, 2, config.block_size)
    got = in_pieces(model, ids, [prefill] + [1] * (config.block_size - prefill), cache)
    assert cache.length == config.block_size
    assert_same(got, model(ids))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
    st.sampled_from([0.5, 1.0]),
    st.booleans(),
    st.sampled_from([None, 40, 3000]),
    st.sampled_from([2, 3, 5]),
)
def test_any_cut_into_pieces_equals_one_forward(
    pieces: list[int], rotary: float, parallel: bool, ngram_rows: int | None, ngram_length: int
) -> None:
    config = small_config(
        block_size=64, exportable=False, rotary_percentage=rotary, parallel_residual=parallel,
        ngram_rows=ngram_rows, ngram_length=ngram_length,
    )  # fmt: skip
    model, ids = random_model(config), random_ids(config, length=sum(pieces))
    got = in_pieces(model, ids, pieces, KVCache(config, 2, 64))
    assert_same(got, model(ids))


@pytest.mark.parametrize("ngrams", [False, True])
def test_after_truncation_the_text_goes_another_way(ngrams: bool) -> None:
    changes = {"exportable": False, "ngram_rows": 500, "ngram_length": 3} if ngrams else {}
    config = random_config("qwen3", 5, **changes)
    model, ids, other = random_model(config), random_ids(config, length=12), random_ids(config, length=12, seed=1)
    other[:, :5] = ids[:, :5]
    cache = KVCache(config, 2, 12)
    in_pieces(model, ids, [12], cache)
    cache.truncate(5)
    assert cache.length == 5
    got = in_pieces(model, other[:, 5:], [3, 1, 1, 1, 1], cache)
    assert_same(got, model(other)[:, 5:])


def test_no_position_sees_a_later_one() -> None:
    config = random_config("llama", 2)
    model, ids = random_model(config), random_ids(config, length=12)
    changed = ids.clone()
    changed[:, 7] = (changed[:, 7] + 1) % 40
    same, differing = model(ids), model(changed)
    assert torch.equal(same[:, :7], differing[:, :7])
    assert not torch.allclose(same[:, 7:], differing[:, 7:])


def test_what_does_not_fit_is_refused_and_leaves_the_cache_as_it_was() -> None:
    config = small_config()
    model, cache = random_model(config), KVCache(config, 1, 8)
    ids = random_ids(config, batch=1, length=9)
    with pytest.raises(FangcunError, match="room for 8 positions, 9"):
        model(ids, cache)
    assert cache.length == 0
    with pytest.raises(ValueError, match="truncate"):
        cache.truncate(1)


def test_a_cache_of_a_smaller_type_is_close() -> None:
    config = small_config()
    model, ids = random_model(config), random_ids(config, length=12)
    cache = KVCache(config, 2, 12, torch.bfloat16)
    got = in_pieces(model, ids, [8, 1, 1, 1, 1], cache)
    assert got.dtype == torch.float32
    assert (got - model(ids)).abs().mean() < 0.05 * model(ids).std()
