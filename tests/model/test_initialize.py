"""First weights depend on the seed and the parameter's name, on nothing else."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from shapes import FAMILIES, random_config, small_config

from fangcun.config import InitConfig, count_parameters
from fangcun.model import Transformer, initialize, parameter_kinds

FINGERPRINT = """
import hashlib, torch
from fangcun.config import ModelConfig, resolve_model
from fangcun.model import Transformer, initialize
torch.manual_seed({noise}); torch.set_num_threads({threads})
model = Transformer(resolve_model(ModelConfig(n_layer=2, n_head=2, n_embd=32, block_size=8), 300)); initialize(model, 5)
print(hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest())
"""


def test_equal_in_another_process_with_other_threads_and_random_state() -> None:
    runs = [
        subprocess.run([sys.executable, "-c", FINGERPRINT.format(noise=n, threads=n)], capture_output=True, text=True, check=True)
        for n in (1, 2)
    ]  # fmt: skip
    assert len(runs[0].stdout.strip()) == 64
    assert runs[0].stdout == runs[1].stdout


def test_a_parameter_does_not_depend_on_those_before_it() -> None:
    short, deep = (
        Transformer(small_config(n_layer=2, exportable=False)),
        Transformer(small_config(n_layer=2, tie_embeddings=False)),
    )
    state = torch.get_rng_state()
    initialize(short, 3)
    initialize(deep, 3)
    assert torch.equal(torch.get_rng_state(), state), "the global generator must not be touched"
    weights = dict(deep.named_parameters())
    assert all(torch.equal(p, weights[name]) for name, p in short.named_parameters())


def test_seeds_and_names_differ_and_types_round_the_same_numbers() -> None:
    config = small_config()
    a, b, half = Transformer(config), Transformer(config), Transformer(config).to(torch.bfloat16)
    initialize(a, 1)
    initialize(b, 2)
    initialize(half, 1)
    assert not torch.equal(a.embedding.weight, b.embedding.weight)
    first, second = (a.get_parameter(f"blocks.{i}.mlp.up.weight") for i in (0, 1))
    assert not torch.equal(first, second)
    assert torch.equal(a.embedding.weight.bfloat16(), half.embedding.weight)


def test_each_kind_starts_as_gpt2_does() -> None:
    config = small_config(
        n_embd=64, vocab_size=1001, bias=True, norm_class="LayerNorm", exportable=False, tie_embeddings=False
    )
    model = Transformer(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    initialize(model, 0)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "norm" in name:
            assert (parameter == 1).all(), name
        else:
            writes = name.endswith(("attention.output.weight", "mlp.down.weight"))
            wanted = 0.02 / math.sqrt(2 * config.n_layer) if writes else 0.02
            assert abs(float(parameter.detach().std()) / wanted - 1) < 0.05, name
    padded = model.embedding.weight[1001:]
    assert len(padded) == 23
    assert abs(float(padded.detach().std()) / 0.02 - 1) < 0.1


def test_init_settings_change_what_they_name() -> None:
    model = Transformer(small_config(n_embd=64, tie_embeddings=False))
    initialize(model, 0, InitConfig(matrices="fan_in", zero_residual=True, zero_head=True, embedding_std=0.5))
    for name, parameter in model.named_parameters():
        if name.endswith(("attention.output.weight", "mlp.down.weight", "head.weight")):
            assert not parameter.any(), name
        elif parameter.ndim == 2:
            wanted = 0.5 if name.startswith("embedding") else 1 / math.sqrt(parameter.shape[1])
            assert abs(float(parameter.detach().std()) / wanted - 1) < 0.05, name
    initialize(model, 0, InitConfig(matrices="fan_in"))
    writer = model.get_parameter("blocks.0.attention.output.weight")
    assert abs(float(writer.detach().std()) / (1 / math.sqrt(writer.shape[1] * 4)) - 1) < 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_has_one_kind(family: str) -> None:
    for seed in range(4):
        config = random_config(family, seed)
        model = Transformer(config)
        kinds = parameter_kinds(model)
        assert list(kinds) == [name for name, _ in model.named_parameters()]
        assert ("head" in kinds.values()) is not config.tie_embeddings
        for name, parameter in model.named_parameters():
            is_linear = any(part in name for part in (".qkv.", ".output.", ".gate.", ".up.", ".down."))
            expected = {"head.weight": "head", "embedding.weight": "embedding", "positions.weight": "embedding"}.get(
                name
            )
            expected = expected or (("bias" if name.endswith("bias") else "matrix") if is_linear else "norm")
            assert kinds[name] == expected, name
            assert parameter.ndim == (2 if kinds[name] in ("matrix", "head", "embedding") else 1)
        assert count_parameters(config) == sum(p.numel() for p in model.parameters())
