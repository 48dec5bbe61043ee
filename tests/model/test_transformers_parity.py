"""Weights go to and come from transformers with equal logits, for what each family can express."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from shapes import FAMILIES, random_config, random_ids, random_model

from fangcun.config import ModelConfig, resolve_model
from fangcun.model import load_model, read_config, save_model

TOLERANCE = 1e-4


def opened(folder: Path) -> Any:
    """The folder as transformers opens it; every weight must have been found."""
    model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    return model.eval()


def shake(model: Any, seed: int) -> None:
    """Random weights of every kind, at the scale of random_model."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = 0.3 * torch.randn(parameter.shape, generator=generator)
            is_norm = ("norm" in name or "ln_" in name) and name.endswith("weight")
            parameter.copy_(1 + drawn if is_norm else drawn)


@torch.no_grad()
def difference(ours: Any, theirs: Any, ids: torch.Tensor) -> float:
    a, b = ours(ids), theirs(ids).logits
    assert a.shape == b.shape
    assert b.std() > 0.1, "logits without contrast prove nothing"
    return float((a - b).abs().max())


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("family", FAMILIES)
def test_what_we_save_has_the_same_logits_in_transformers(family: str, seed: int, tmp_path: Path) -> None:
    config = random_config(family, seed)
    model = random_model(config, seed)
    save_model(model, tmp_path, eos_id=3, pad_id=0)
    theirs = opened(tmp_path)
    assert type(theirs).__name__.lower().startswith(family.replace("_", ""))
    assert theirs.dtype == torch.float32
    assert difference(model, theirs, random_ids(config, seed=seed)) < TOLERANCE


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("family", FAMILIES)
def test_what_transformers_saves_has_the_same_logits_here(family: str, seed: int, tmp_path: Path) -> None:
    config = random_config(family, seed)
    save_model(random_model(config), tmp_path / "seed")
    theirs = opened(tmp_path / "seed")
    shake(theirs, seed)
    theirs.save_pretrained(tmp_path / "theirs")
    if seed % 2:  # as a folder that never was ours
        raw = json.loads((tmp_path / "theirs/config.json").read_text())
        raw.pop("fangcun")
        (tmp_path / "theirs/config.json").write_text(json.dumps(raw))
    ours = load_model(tmp_path / "theirs")
    assert difference(ours, theirs, random_ids(config, seed=seed)) < TOLERANCE


HF_DEFAULTS = {
    "gpt2": ("GPT2", {"n_positions": 20, "n_embd": 24, "n_layer": 2, "n_head": 3, "vocab_size": 60}),
    "gpt_neox": ("GPTNeoX", {}),
    "llama": ("Llama", {"attention_bias": True}),
    "mistral": ("Mistral", {"sliding_window": None, "num_attention_heads": 8}),
    "qwen2": ("Qwen2", {"num_key_value_heads": 2, "rope_theta": 1000.0}),
    "qwen3": ("Qwen3", {"num_key_value_heads": 1}),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_born_in_transformers_opens_with_the_defaults_of_its_class(family: str, tmp_path: Path) -> None:
    name, changes = HF_DEFAULTS[family]
    shape = {
        "vocab_size": 60,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    shape = (changes if family == "gpt2" else shape | {"max_position_embeddings": 20} | changes) | {
        "eos_token_id": 1,
        "bos_token_id": 1,
    }
    theirs = getattr(transformers, f"{name}LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM")(
        getattr(transformers, f"{name}Config")(**shape)
    ).eval()
    shake(theirs, 5)
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    assert ours.config.family == family
    assert difference(ours, theirs, random_ids(ours.config, length=20)) < TOLERANCE
    save_model(ours, tmp_path / "again")
    assert difference(ours, opened(tmp_path / "again"), random_ids(ours.config, length=20)) < TOLERANCE


@pytest.mark.parametrize("old", ["rope_theta", "rope_scaling"])
def test_a_config_of_transformers_4_is_read(old: str, tmp_path: Path) -> None:
    config = random_config("llama", 1, rope_base=500.0)
    model = random_model(config)
    save_model(model, tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    for key in ("fangcun", "rope_parameters", "dtype"):
        raw.pop(key)
    raw["rope_scaling"] = None if old == "rope_theta" else {"type": "default"}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    assert read_config(tmp_path).rope_base == 500.0
    ids = random_ids(config)
    assert difference(load_model(tmp_path), opened(tmp_path), ids) < TOLERANCE
    assert torch.equal(load_model(tmp_path)(ids), model(ids))


def test_gpt2_opens_with_and_without_prefix_and_with_masks(tmp_path: Path) -> None:
    config = random_config("gpt2", 3, bias=True, tie_embeddings=True)
    model = random_model(config)
    save_model(model, tmp_path)
    file = tmp_path / "model.safetensors"
    state = {name.removeprefix("transformer."): tensor for name, tensor in load_file(file).items()}
    for layer in range(config.n_layer):
        state[f"h.{layer}.attn.bias"] = torch.ones(1, 1, config.block_size, config.block_size).tril()
    save_file(state, file, metadata={"format": "pt"})
    ids = random_ids(config)
    assert torch.equal(load_model(tmp_path)(ids), model(ids))
    assert difference(model, opened(tmp_path), ids) < TOLERANCE
    state["h.0.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(state, file)
    assert torch.equal(load_model(tmp_path)(ids), model(ids))


@pytest.mark.parametrize("attention_bias", [True, False])
@pytest.mark.parametrize("parallel", [True, False])
def test_pythia_in_its_own_spelling_has_the_same_logits_here(
    attention_bias: bool, parallel: bool, tmp_path: Path
) -> None:
    shape = {
        "vocab_size": 60,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 40,
    }
    rotation = {"rotary_pct": 0.5, "rotary_emb_base": 500}
    more = {"attention_bias": attention_bias, "use_parallel_residual": parallel, "hidden_act": "gelu_fast"}
    config = transformers.GPTNeoXConfig(**shape, **more, **rotation, max_position_embeddings=20)
    theirs = transformers.GPTNeoXForCausalLM(config).eval()
    shake(theirs, 3)
    theirs.save_pretrained(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    del raw["rope_parameters"]  # as Pythia's own config.json, which transformers 4 wrote
    (tmp_path / "config.json").write_text(json.dumps(raw | rotation))
    state = load_file(tmp_path / "model.safetensors")
    for layer in range(2):  # what old files carry
        state[f"gpt_neox.layers.{layer}.attention.bias"] = torch.ones(1, 1, 20, 20).tril()
        state[f"gpt_neox.layers.{layer}.attention.masked_bias"] = torch.tensor(-1e9)
        state[f"gpt_neox.layers.{layer}.attention.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    ours = load_model(tmp_path)
    assert ours.config.rotary_percentage == 0.5 and ours.config.rope_base == 500.0
    assert difference(ours, theirs, random_ids(ours.config, length=20)) < TOLERANCE


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox"])
def test_one_of_ours_that_got_biases_elsewhere_keeps_them(family: str, tmp_path: Path) -> None:
    config = random_config(family, 2, bias=False, attention_bias=False)
    save_model(random_model(config), tmp_path)
    theirs = opened(tmp_path)
    shake(theirs, 9)  # fine-tuning would move the zero biases too
    theirs.save_pretrained(tmp_path / "tuned")
    ours = load_model(tmp_path / "tuned")
    assert ours.config.bias
    assert difference(ours, theirs, random_ids(config)) < TOLERANCE


def test_an_embedding_resized_in_transformers_is_believed_over_our_own_config(tmp_path: Path) -> None:
    config = random_config("qwen3", 1)
    save_model(random_model(config), tmp_path)
    theirs = opened(tmp_path)
    theirs.resize_token_embeddings(config.padded_vocab_size + 5)
    theirs.save_pretrained(tmp_path / "wider")
    ours = load_model(tmp_path / "wider")
    assert ours.config.padded_vocab_size == config.padded_vocab_size + 5
    assert difference(ours, theirs, random_ids(config)) < TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_our_own_config_survives_a_save_by_transformers(family: str, tmp_path: Path) -> None:
    config = random_config(family, 2, dropout=0.25, padding_multiple=64)
    save_model(random_model(config), tmp_path)
    opened(tmp_path).save_pretrained(tmp_path / "again")
    assert load_model(tmp_path / "again").config == config


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_chosen_type_of_the_file_is_what_transformers_loads(dtype: torch.dtype, tmp_path: Path) -> None:
    model = random_model(random_config("qwen3", 2))
    save_model(model, tmp_path, dtype)
    assert opened(tmp_path).dtype == dtype
    assert {t.dtype for t in load_file(tmp_path / "model.safetensors").values()} == {dtype}


def test_special_ids_arrive_and_absent_ones_are_none(tmp_path: Path) -> None:
    save_model(random_model(random_config("llama", 0)), tmp_path, eos_id=7)
    theirs = opened(tmp_path)
    assert (theirs.config.eos_token_id, theirs.config.bos_token_id, theirs.config.pad_token_id) == (7, None, None)
    assert theirs.generation_config.eos_token_id == 7
    assert theirs.generation_config.bos_token_id is None


def test_microstories_shape_opens_as_mistral(tmp_path: Path) -> None:
    shape = {
        "n_layer": 1,
        "n_head": 6,
        "head_size": 48,
        "n_embd": 512,
        "intermediate_size": 64,
        "qk_norm": False,
        "vocab_size": 64,
    }
    config = resolve_model(ModelConfig(family="mistral", block_size=16, **shape))
    model = random_model(config)
    save_model(model, tmp_path)
    assert difference(model, opened(tmp_path), random_ids(config)) < TOLERANCE
