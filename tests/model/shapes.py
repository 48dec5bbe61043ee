"""Random small configs of what each family can express, and models with weights of every kind away from 0 and 1."""

from __future__ import annotations

import random
from typing import Any

import torch

from fangcun.config import ModelConfig, resolve_model
from fangcun.model import Transformer

FAMILIES = ("gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3")
GPT2 = {"norm_class": "LayerNorm", "mlp_class": "GELU", "positions": "learned", "qk_norm": False}
GPT_NEOX = {"norm_class": "LayerNorm", "mlp_class": "GELU", "positions": "rope", "qk_norm": False}


def random_config(family: str, seed: int, **changes: Any) -> ModelConfig:
    """A resolved config that `family` can express; another one for every seed."""
    draw = random.Random(f"{family} {seed}")
    heads = draw.choice([1, 2, 4, 6])
    head_size = draw.choice([4, 8, 16])
    shape: dict[str, Any] = {
        "family": family,
        "block_size": draw.choice([16, 24, 33]),
        "vocab_size": draw.randint(40, 90),
        "padding_multiple": draw.choice([1, 8, 64]),
        "n_layer": draw.choice([1, 2, 3]),
        "n_head": heads,
        "n_embd": heads * head_size,
        "intermediate_size": draw.choice([None, 20, 48]),
        "norm_eps": draw.choice([1e-6, 1e-5]),
        "tie_embeddings": draw.random() < 0.5,
    }
    if family == "gpt2":
        shape |= GPT2 | {"bias": draw.random() < 0.5, "attention_bias": draw.random() < 0.5}
        shape["gelu_approximate"] = draw.choice(["tanh", "none"])
    elif family == "gpt_neox":
        shape |= GPT_NEOX | {"bias": draw.random() < 0.5, "attention_bias": draw.random() < 0.5}
        shape["gelu_approximate"] = draw.choice(["tanh", "none"])
        shape["parallel_residual"] = draw.random() < 0.7
        shape["rotary_percentage"] = draw.choice([0.5, 1.0] if head_size == 4 else [0.25, 0.5, 1.0])
        shape["rope_base"] = draw.choice([100.0, 10000.0, 1e6])
    else:
        shape["n_query_groups"] = draw.choice([g for g in range(1, heads + 1) if heads % g == 0])
        shape["rope_base"] = draw.choice([100.0, 10000.0, 1e6])
        shape["qk_norm"] = family == "qwen3"
        shape["attention_bias"] = family == "qwen2" or (family in ("llama", "qwen3") and draw.random() < 0.5)
        shape["bias"] = family == "llama" and draw.random() < 0.4
    if family in ("llama", "mistral", "qwen3"):
        shape["head_size"] = draw.choice([None, 4, 10, 12])
    if family in ("mistral", "qwen3") and shape["head_size"]:
        shape["n_embd"] += draw.choice([0, 2])
    return resolve_model(ModelConfig(**shape | changes))


def random_model(config: ModelConfig, seed: int = 0) -> Transformer:
    """Weights large enough that attention is far from uniform; biases and norm weights not at 0 and 1."""
    model = Transformer(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.3 * drawn if "norm" in name and name.endswith("weight") else 0.3 * drawn)
    return model.eval()


def random_ids(config: ModelConfig, batch: int = 2, length: int | None = None, seed: int = 0) -> torch.Tensor:
    """(batch, length or block_size) ids."""
    size = (batch, length or config.block_size)
    return torch.randint(0, config.vocab_size or 1, size, generator=torch.Generator().manual_seed(seed))


def small_config(**changes: Any) -> ModelConfig:
    """A small Qwen3-shaped config with `changes`."""
    shape = {"block_size": 24, "vocab_size": 50, "n_layer": 2, "n_head": 4, "n_query_groups": 2, "n_embd": 32}
    return resolve_model(ModelConfig(**shape | changes))
