"""litgpt's checkpoints become runs: their mathematics is that of transformers' classes with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from folders import huggingface_folder, largest_difference, save_tokenizer
from shapes import random_ids

import fangcun
from fangcun.errors import FangcunError
from fangcun.importing import read_litgpt, take_in

LLAMA = {
    "norm_class_name": "RMSNorm",
    "mlp_class_name": "LLaMAMLP",
    "rotary_percentage": 1.0,
    "parallel_residual": False,
}
NEOX = {"norm_class_name": "LayerNorm", "mlp_class_name": "GptNeoxMLP"}


def litgpt_config(theirs: Any, **more: Any) -> dict[str, Any]:
    """model_config.yaml for a model of transformers, defaults of litgpt left out."""
    config = theirs.config
    rope = config.rope_parameters
    return {
        "name": "small",
        "hf_config": {"org": "x", "name": "y"},
        "block_size": config.max_position_embeddings,
        "vocab_size": config.vocab_size - 10,
        "padded_vocab_size": config.vocab_size,
        "n_layer": config.num_hidden_layers,
        "n_head": config.num_attention_heads,
        "n_embd": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "rope_base": rope["rope_theta"],
        "norm_eps": getattr(config, "rms_norm_eps", None) or config.layer_norm_eps,
        "sliding_window_size": None,
        "shared_attention_norm": False,
        **more,
    }


def cut(tensor: torch.Tensor, *sizes: int) -> tuple[torch.Tensor, ...]:
    return tensor.split(sizes)


def from_llama(theirs: Any, *, grouped: bool) -> dict[str, torch.Tensor]:
    """Weights of a Llama-like model under litgpt's names; grouped: query, key and value in the older order."""
    hf, config = theirs.state_dict(), theirs.config
    groups = config.num_key_value_heads
    size = hf["model.layers.0.self_attn.k_proj.weight"].shape[0] // groups
    state = {
        "lm_head.weight": hf["lm_head.weight"],
        "transformer.wte.weight": hf["model.embed_tokens.weight"],
        "transformer.ln_f.weight": hf["model.norm.weight"],
    }
    names = {"input_layernorm": "norm_1", "post_attention_layernorm": "norm_2", "self_attn.o_proj": "attn.proj"}
    names |= {"mlp.gate_proj": "mlp.fc_1", "mlp.up_proj": "mlp.fc_2", "mlp.down_proj": "mlp.proj"}
    names |= {"self_attn.q_norm": "attn.norm_q", "self_attn.k_norm": "attn.norm_k"}
    for layer in range(config.num_hidden_layers):
        old, new = f"model.layers.{layer}", f"transformer.h.{layer}"
        for name, there in names.items():
            if f"{old}.{name}.weight" in hf:
                state[f"{new}.{there}.weight"] = hf[f"{old}.{name}.weight"]
        for part in ("weight", "bias"):
            if f"{old}.self_attn.q_proj.{part}" not in hf:
                continue
            q, k, v = (hf[f"{old}.self_attn.{letter}_proj.{part}"] for letter in "qkv")
            if not grouped:
                state[f"{new}.attn.qkv.{part}"] = torch.cat((q, k, v))
                continue
            queries = q.shape[0] // groups
            rows = []
            for group in range(groups):
                rows += [
                    q[group * queries : (group + 1) * queries],
                    *(t[group * size : (group + 1) * size] for t in (k, v)),
                ]
            state[f"{new}.attn.attn.{part}"] = torch.cat(rows)
    return state


def from_neox(theirs: Any, *, grouped: bool) -> dict[str, torch.Tensor]:
    """Weights of a GPT-NeoX under litgpt's names. litgpt's older order is that of GPT-NeoX itself."""
    hf, config = theirs.state_dict(), theirs.config
    names = {"input_layernorm": "norm_1", "post_attention_layernorm": "norm_2", "attention.dense": "attn.proj"}
    names |= {"mlp.dense_h_to_4h": "mlp.fc", "mlp.dense_4h_to_h": "mlp.proj"}
    state = {"lm_head.weight": hf["lm_head.weight"], "transformer.wte.weight": hf["gpt_neox.embed_in.weight"]}
    for part in ("weight", "bias"):
        state[f"transformer.ln_f.{part}"] = hf[f"gpt_neox.final_layer_norm.{part}"]
        for layer in range(config.num_hidden_layers):
            old, new = f"gpt_neox.layers.{layer}", f"transformer.h.{layer}"
            for name, there in names.items():
                state[f"{new}.{there}.{part}"] = hf[f"{old}.{name}.{part}"]
            fused = hf[f"{old}.attention.query_key_value.{part}"]
            if grouped:
                state[f"{new}.attn.attn.{part}"] = fused
            else:
                heads = fused.chunk(config.num_attention_heads)
                state[f"{new}.attn.qkv.{part}"] = torch.cat([head.chunk(3)[i] for i in range(3) for head in heads])
    return state


def write(folder: Path, config: dict[str, Any], content: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model_config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    torch.save(content, folder / "lit_model.pth")
    return save_tokenizer(folder)


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("llama", {"bias": False}),
        ("qwen2", {"bias": False, "attn_bias": True}),
        ("qwen3", {"bias": False, "norm_qk": True}),
        ("mistral", {"bias": False}),
    ],
)
def test_llama_shaped_checkpoints_have_their_logits(family: str, more: dict, grouped: bool, tmp_path: Path) -> None:
    theirs = huggingface_folder(
        tmp_path, family, n_head=4, n_query_groups=2, n_embd=32, bias=False, attention_bias=family == "qwen2",
        head_size=None if family == "qwen2" else 12, tie_embeddings=False,
    )  # fmt: skip
    config = litgpt_config(
        theirs, n_query_groups=2, head_size=getattr(theirs.config, "head_dim", None) or 8, **LLAMA, **more
    )
    folder = write(tmp_path / "lit", config, {"model": from_llama(theirs, grouped=grouped), "step_count": 5})
    take_in(folder, tmp_path / "run")
    lm = fangcun.load(tmp_path / "run", device="cpu")
    ids = random_ids(lm.config)
    assert largest_difference(lm.logits(ids), theirs(ids).logits) < 1e-4
    # A Mistral and a Llama are one mathematics, so that either name is right.
    assert lm.config.family in (("llama", "mistral") if family in ("llama", "mistral") else (family,))
    assert lm.config.exportable and not lm.config.tie_embeddings


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("parallel", [True, False])
def test_pythia_shaped_checkpoints_have_their_logits(grouped: bool, parallel: bool, tmp_path: Path) -> None:
    theirs = huggingface_folder(
        tmp_path, "gpt_neox", n_head=4, n_embd=32, bias=True, parallel_residual=parallel, rotary_percentage=0.25,
        gelu_approximate="none", tie_embeddings=False,
    )  # fmt: skip
    config = litgpt_config(theirs, **NEOX, parallel_residual=parallel)
    take_in(write(tmp_path / "lit", config, from_neox(theirs, grouped=grouped)), tmp_path / "run")
    lm = fangcun.load(tmp_path / "run", device="cpu")
    ids = random_ids(lm.config)
    assert largest_difference(lm.logits(ids), theirs(ids).logits) < 1e-4
    assert (lm.config.family, lm.config.rotary_percentage) == ("gpt_neox", 0.25)  # litgpt's default share


def test_a_head_equal_to_the_embedding_is_tied(tmp_path: Path) -> None:
    shape = {"n_head": 2, "n_query_groups": 1, "n_embd": 16, "head_size": 8, "bias": False, "attention_bias": False}
    theirs = huggingface_folder(tmp_path, "llama", **shape, tie_embeddings=True)
    config = litgpt_config(theirs, n_query_groups=theirs.config.num_key_value_heads, head_size=8, bias=False, **LLAMA)
    model = read_litgpt(write(tmp_path / "lit", config, from_llama(theirs, grouped=False))).model
    assert model.config.tie_embeddings and model.head is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shared_attention_norm": True}, r"shared_attention_norm: true .* not offered"),
        ({"mlp_class_name": "GemmaMLP"}, r"mlp_class_name: GemmaMLP .* not offered"),
        ({"sliding_window_size": 16}, r"sliding_window_size: 16 .* not offered"),
        ({"name": "Gemma-2b", "norm_class_name": "RMSNorm"}, "Gemma's RMSNorm"),
        ({"n_layer": 9}, r"lit: the weights lack transformer\.h\.[2-9].*that model_config.yaml states"),
        ({"n_query_groups": 1}, r"has 96 rows, expected 48.*belong to these weights"),
        ({"n_head": "four"}, r"n_head: expected a whole number"),
    ],
)
def test_what_is_not_had_here_or_does_not_fit_is_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    theirs = huggingface_folder(tmp_path, "gpt_neox", n_head=4, n_embd=32, n_layer=2, bias=True, tie_embeddings=False)
    config = litgpt_config(theirs, **NEOX) | change
    folder = write(tmp_path / "lit", config, from_neox(theirs, grouped=True))
    with pytest.raises(FangcunError, match=message):
        take_in(folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["lit_model.pth", "model_config.yaml"])
def test_half_a_checkpoint_is_told(name: str, tmp_path: Path) -> None:
    theirs = huggingface_folder(tmp_path, "gpt_neox")
    folder = write(tmp_path / "lit", litgpt_config(theirs, **NEOX), {})
    (folder / name).unlink()
    with pytest.raises(FangcunError, match=f"{name} is missing"):
        take_in(folder, tmp_path / "run")
