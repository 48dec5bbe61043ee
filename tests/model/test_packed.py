"""A packed model computes what the plain one does, up to rounding; int8 and int4 within what their bits can."""

from __future__ import annotations

import copy

import pytest
import torch
from shapes import FAMILIES, random_config, random_model

from fangcun.model import KVCache
from fangcun.model.packed import (
    Bf16Linear,
    Int4Linear,
    Int8Linear,
    OneDnnInt8Linear,
    _quantize_with_torchao,
    pack,
    packs,
    quantize_rows,
)

pytestmark = pytest.mark.skipif(not packs(torch.float32), reason="this torch has no packed products on this CPU")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(3))
def test_packed_logits_are_the_plain_ones(family: str, seed: int) -> None:
    model = random_model(random_config(family, seed))
    ids = torch.randint(model.config.vocab_size or 1, (3, 14), generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        wanted = model(ids)
        packed = pack(copy.deepcopy(model))
        assert packed.packed_head is not None
        torch.testing.assert_close(packed(ids), wanted, atol=2e-4, rtol=2e-4)
        cache = KVCache(model.config, 3, 14, packed.cache_dtype)
        steps = [packed(ids[:, place : place + 1], cache) for place in range(14)]
        torch.testing.assert_close(torch.cat(steps, dim=1), wanted, atol=2e-4, rtol=2e-4)


@pytest.mark.skipif(not packs(torch.bfloat16), reason="this CPU has no bf16 products")
def test_packed_bf16_is_nearer_to_float32_than_plain_bf16() -> None:
    model = random_model(random_config("qwen3", 5, n_layer=3))
    ids = torch.arange(16)[None] % (model.config.vocab_size or 1)
    with torch.inference_mode():
        exact = model(ids)
        plain = (copy.deepcopy(model).bfloat16()(ids).float() - exact).abs().mean()
        packed = (pack(copy.deepcopy(model).bfloat16())(ids).float() - exact).abs().mean()
    assert packed < plain


def test_a_bf16_product_is_that_of_its_weights_for_few_rows_and_many() -> None:
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(90, 40, generator=generator).bfloat16()
    if not Bf16Linear.fits(weight):
        pytest.skip("this torch has no float16 products on this CPU")
    bias = torch.randn(90, generator=generator).bfloat16()
    head, x = Bf16Linear(weight, bias), torch.randn(9, 40, generator=generator)
    wanted = x @ weight.float().T + bias.float()
    for count in (1, 4):  # the weights are exact, and so is the input
        torch.testing.assert_close(head(x[:count]), wanted[:count], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(head(x), wanted, atol=0.1, rtol=0.02)
    assert not Bf16Linear.fits(weight * 1e6)
    assert not Bf16Linear.fits(weight.float())


@pytest.mark.parametrize(("packing", "allowed"), [("int8", 0.03), ("int4", 0.35)])
@pytest.mark.parametrize("tied", [True, False])
def test_fewer_bits_cost_little(packing: str, allowed: float, tied: bool) -> None:
    if not packs(torch.float32, packing):  # type: ignore[arg-type]
        pytest.skip(f"this torch has no {packing} kernels on this CPU")
    shape = {
        "n_head": 2,
        "n_query_groups": 2,
        "n_embd": 64,
        "head_size": 32,
        "intermediate_size": 96,
        "tie_embeddings": tied,
    }
    model = random_model(random_config("qwen3", 1, vocab_size=90, padding_multiple=16, **shape))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(0.4)  # near the size that training gives
    ids = torch.arange(16)[None]
    packed = pack(copy.deepcopy(model), packing)  # type: ignore[arg-type]
    with torch.inference_mode():
        wanted, got = model(ids), packed(ids)
    assert 0 < (got - wanted).std() < allowed * wanted.std()


@pytest.mark.parametrize("layer", [Int8Linear, OneDnnInt8Linear])
@pytest.mark.parametrize("biased", [False, True])
def test_both_int8_products_are_within_their_steps(layer: type[torch.nn.Module], biased: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    weight, bias = torch.randn(33, 70, generator=generator), torch.randn(33, generator=generator) if biased else None
    x = torch.randn(5, 70, generator=generator) * torch.tensor([1e-3, 1, 1, 30, 1])[:, None]
    try:
        product = layer(weight, bias)
    except (RuntimeError, AttributeError):
        pytest.skip("this torch has no such kernel on this CPU")
    wanted = torch.nn.functional.linear(x, weight, bias)
    for rows in (slice(0, 1), slice(0, 5), slice(3, 4)):
        error = (product(x[rows]) - wanted[rows]).abs().amax(-1)
        assert bool((error <= 0.1 * x[rows].norm(dim=-1) * weight.norm(dim=-1).max() / 8).all())


def test_int8_rows_are_alone_whatever_is_beside_them() -> None:
    if not packs(torch.float32, "int8"):
        pytest.skip("this torch has no int8 kernels on this CPU")
    model = pack(random_model(random_config("qwen3", 1)), "int8")
    ids = torch.arange(12).view(3, 4) % (model.config.vocab_size or 1)
    with torch.inference_mode():
        together = model(ids)
        for rows in (slice(0, 1), slice(1, 3)):
            torch.testing.assert_close(model(ids[rows]), together[rows], atol=1e-4, rtol=1e-4)


def test_rows_are_quantized_to_half_a_step() -> None:
    x = torch.randn(5, 33, generator=torch.Generator().manual_seed(0))
    x[2] = 0
    whole, scale = quantize_rows(x)
    assert bool(((whole.float() * scale - x).abs() <= scale / 2 + 1e-7).all())
    assert int(whole.abs().max()) == 127


def test_shapes_that_int4_has_no_kernel_for_take_int8() -> None:
    assert not Int4Linear.fits(torch.empty(17, 32))
    assert not Int4Linear.fits(torch.empty(16, 48))
    assert Int4Linear.fits(torch.empty(48, 64))


def test_torchao_quantizes_the_head_and_leaves_the_embedding() -> None:
    pytest.importorskip("torchao")
    model = random_model(random_config("qwen3", 1, tie_embeddings=True))
    ids = torch.arange(10)[None] % (model.config.vocab_size or 1)
    with torch.inference_mode():
        wanted = model(ids)
    quantized = _quantize_with_torchao(copy.deepcopy(model), "int8")
    assert torch.equal(quantized.embedding.weight, model.embedding.weight)
    with torch.inference_mode():
        got = quantized(ids)
    assert 0 < (got - wanted).std() < 0.05 * wanted.std()
