"""nanoGPT's ckpt.pt becomes a run with the logits of nanoGPT's own mathematics."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from folders import largest_difference, save_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import story
from torch.nn import functional as F

import fangcun
from fangcun.artifacts import find_weights, read_manifest
from fangcun.errors import FangcunError
from fangcun.importing import characters_of, read_nanogpt, take_in

SHAPE: dict[str, Any] = {"n_layer": 2, "n_head": 3, "n_embd": 24, "block_size": 20, "vocab_size": 320, "dropout": 0.1}


def weights_of(shape: dict[str, Any], bias: bool, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights under nanoGPT's names, the head shared with the embedding."""
    draw = torch.Generator().manual_seed(seed)
    width = shape["n_embd"]
    state: dict[str, torch.Tensor] = {}

    def add(name: str, *size: int, around: float = 0.0) -> None:
        state[f"{name}.weight"] = around + 0.3 * torch.randn(*size, generator=draw)
        if bias and not name.endswith(("wte", "wpe")):
            state[f"{name}.bias"] = 0.3 * torch.randn(size[0], generator=draw)

    add("transformer.wte", shape["vocab_size"], width)
    add("transformer.wpe", shape["block_size"], width)
    for layer in range(shape["n_layer"]):
        block = f"transformer.h.{layer}"
        add(f"{block}.ln_1", width, around=1.0)
        add(f"{block}.attn.c_attn", 3 * width, width)
        add(f"{block}.attn.c_proj", width, width)
        add(f"{block}.ln_2", width, around=1.0)
        add(f"{block}.mlp.c_fc", 4 * width, width)
        add(f"{block}.mlp.c_proj", width, 4 * width)
    add("transformer.ln_f", width, around=1.0)
    state["lm_head.weight"] = state["transformer.wte.weight"]
    return state


def reference_logits(state: dict[str, torch.Tensor], shape: dict[str, Any], ids: torch.Tensor) -> torch.Tensor:
    """What nanoGPT computes, written out: pre-norm blocks, exact GELU, explicit causal softmax."""

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state.get(f"{name}.bias"), 1e-5)

    B, T = ids.shape
    heads, width = shape["n_head"], shape["n_embd"]
    x = state["transformer.wte.weight"][ids] + state["transformer.wpe.weight"][:T]
    allowed = torch.ones(T, T, dtype=torch.bool).tril()
    for layer in range(shape["n_layer"]):
        block = f"transformer.h.{layer}"
        parts = linear(f"{block}.attn.c_attn", norm(f"{block}.ln_1", x)).split(width, dim=2)
        q, k, v = (part.view(B, T, heads, width // heads).transpose(1, 2) for part in parts)
        scores = (q @ k.mT / math.sqrt(width // heads)).masked_fill(~allowed, -math.inf)
        mixed = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(B, T, width)
        x = x + linear(f"{block}.attn.c_proj", mixed)
        wide = linear(f"{block}.mlp.c_fc", norm(f"{block}.ln_2", x))
        x = x + linear(f"{block}.mlp.c_proj", 0.5 * wide * (1 + torch.erf(wide / math.sqrt(2))))
    return F.linear(norm("transformer.ln_f", x), state["lm_head.weight"])


def write_checkpoint(file: Path, state: dict[str, torch.Tensor], shape: dict[str, Any], **more: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {"model": state, "model_args": shape, "iter_num": 12, "best_val_loss": torch.tensor(2.5), "config": {}}
    torch.save(content | {"optimizer": {"state": {}, "param_groups": []}} | more, file)
    return file


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_a_checkpoint_becomes_a_run_with_its_logits(bias: bool, prefix: str, tmp_path: Path) -> None:
    state = weights_of(SHAPE, bias)
    saved = {prefix + name: tensor for name, tensor in state.items()}
    for layer in range(SHAPE["n_layer"]):  # the mask that versions without flash attention saved
        saved[f"{prefix}transformer.h.{layer}.attn.bias"] = torch.ones(1, 1, 20, 20).tril()
    write_checkpoint(tmp_path / "out/ckpt.pt", saved, SHAPE | {"bias": bias})
    take_in(tmp_path / "out", tmp_path / "run", tokenizer=save_tokenizer(tmp_path / "words"))
    lm = fangcun.load(tmp_path / "run", device="cpu")
    ids = torch.randint(0, 320, (2, 20), generator=torch.Generator().manual_seed(1))
    assert largest_difference(lm.logits(ids), reference_logits(state, SHAPE, ids)) < 1e-4
    assert (lm.config.family, lm.config.bias, lm.config.tie_embeddings) == ("gpt2", bias, True)
    assert (lm.config.dropout, lm.config.attention_dropout) == (0.1, 0.1)
    facts = read_manifest(find_weights(tmp_path / "run"), "checkpoint").settings["imported"]
    assert (facts["step"], facts["best_val_loss"]) == (12, 2.5)


def test_characters_have_the_ids_of_nanogpts_prepare(tmp_path: Path) -> None:
    text = story() + "\r\nCarriage returns count as newlines.\r\n"
    (tmp_path / "input.txt").write_bytes(text.encode())
    read = (tmp_path / "input.txt").read_text(encoding="utf-8")  # as prepare.py opens it
    numbers = {character: index for index, character in enumerate(sorted(set(read)))}
    found = characters_of(tmp_path / "input.txt")
    assert found.encode(read) == [numbers[character] for character in read]
    assert found.decode(found.encode(read)) == read
    assert found.eos_id == len(numbers) and found.encode("鿿") == [len(numbers) + 1] == [found.unk_id]


@settings(max_examples=30, deadline=None)
@given(st.text(min_size=1).filter(lambda text: "\r" not in text and text.isprintable()))
def test_any_text_gives_back_its_characters_in_order(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.mktemp("text") / "input.txt"
    file.write_text(text, encoding="utf-8")
    assert characters_of(file).encode(text) == [sorted(set(text)).index(character) for character in text]


def test_a_model_of_characters_keeps_its_logits_and_gives_new_tokens_no_more_than_a_guess(tmp_path: Path) -> None:
    (tmp_path / "input.txt").write_text(story(), encoding="utf-8")
    shape = SHAPE | {"vocab_size": len(set(story()))}
    state = weights_of(shape, False)
    write_checkpoint(tmp_path / "ckpt.pt", state, shape)
    take_in(tmp_path / "ckpt.pt", tmp_path / "run", characters_from=tmp_path / "input.txt")
    lm = fangcun.load(tmp_path / "run", device="cpu")
    ids = torch.tensor([lm.tokenizer.encode(story()[:20])])
    logits, rows = lm.logits(ids), shape["vocab_size"]
    assert largest_difference(logits[..., :rows], reference_logits(state, shape, ids)) < 1e-4
    assert logits.shape[-1] == rows + 2
    assert float(logits.softmax(dim=-1)[..., rows:].max()) <= 1 / rows


def test_a_text_with_other_characters_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "ckpt.pt", weights_of(SHAPE, False), SHAPE)
    (tmp_path / "input.txt").write_text("abc", encoding="utf-8")
    with pytest.raises(FangcunError, match=r"has 3 different characters, the model's vocabulary 320"):
        take_in(tmp_path / "ckpt.pt", tmp_path / "run", characters_from=tmp_path / "input.txt")


@pytest.mark.parametrize(
    ("rows", "hint"), [(320, "--characters-from data/novel/input.txt"), (50304, r"reads GPT-2's: --tokenizer")]
)
def test_a_missing_tokenizer_is_told_with_what_fits(rows: int, hint: str, tmp_path: Path) -> None:
    shape = SHAPE | {"vocab_size": rows, "n_layer": 1}
    write_checkpoint(tmp_path / "ckpt.pt", weights_of(shape, False), shape, config={"dataset": "novel"})
    with pytest.raises(FangcunError, match=hint):
        take_in(tmp_path / "ckpt.pt", tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_args": SHAPE | {"bias": True}}, "model_args says bias True, the weights say False"),
        (
            {"model_args": SHAPE | {"n_layer": 3}},
            r"ckpt\.pt: the weights lack transformer\.h\.2.*that model_args states",
        ),
        ({"model_args": SHAPE | {"n_layer": 1}}, r"what model_args does not account for: transformer\.h\.1"),
        ({"model_args": SHAPE | {"n_embd": "24"}}, "model_args.n_embd is '24', expected a whole number"),
        ({"model_args": SHAPE | {"block_size": 30}}, r"positions.weight is \(20, 24\), expected \(30, 24\)"),
        ({"model": {"a": 1}}, "expected weights"),
    ],
)
def test_what_does_not_fit_together_is_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "ckpt.pt", weights_of(SHAPE, False), SHAPE, **change)
    with pytest.raises(FangcunError, match=message):
        read_nanogpt(tmp_path / "ckpt.pt")


def test_a_state_dict_alone_is_no_checkpoint(tmp_path: Path) -> None:
    torch.save(weights_of(SHAPE, False), tmp_path / "model.pt")
    with pytest.raises(FangcunError, match="no checkpoint of nanoGPT's: expected the keys model and model_args"):
        take_in(tmp_path / "model.pt", tmp_path / "run")
