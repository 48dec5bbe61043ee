"""A trained checkpoint of each family opens with transformers as it is: same ids, same logits, same greedy text."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import run_tiny, write_story

import fangcun
from fangcun.artifacts import list_checkpoints

FAMILIES = {
    "gpt2": "--model.norm_class LayerNorm --model.mlp_class GELU --model.positions learned --model.qk_norm false",
    "gpt_neox": "--model.norm_class LayerNorm --model.mlp_class GELU --model.qk_norm false --model.bias true --model.rotary_percentage 0.25 --model.parallel_residual true --model.tie_embeddings false",
    "llama": "--model.qk_norm false --model.n_query_groups 1",
    "mistral": "--model.qk_norm false --model.n_query_groups 1 --model.head_size 12",
    "qwen2": "--model.qk_norm false --model.n_query_groups 1 --model.attention_bias true",
    "qwen3": "--model.n_query_groups 1 --model.head_size 12 --model.tie_embeddings false",
}
TEXTS = ["却说曹操引军攻吕布。", "Hello, 世界! 第3日\n\n ", "<|endoftext|>中"]


@pytest.mark.parametrize("kind", ["bpe", "char"])
@pytest.mark.parametrize("family", FAMILIES)
def test_checkpoint_opens_with_transformers(tmp_path: Path, family: str, kind: str, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if kind == "char" and family not in ("gpt2", "qwen3"):
        pytest.skip("the tokenizer does not depend on the family: two are enough")
    flags = ["--model.family", family, *FAMILIES[family].split(), "--optimizer.lr", "1e-2", "--tokenizer.kind", kind]
    assert run_tiny(write_story(tmp_path), tmp_path / "run", *flags, leave_out="--tokenizer.vocab_size") == 0
    folder = list_checkpoints(tmp_path / "run")[-1]
    ours = fangcun.load(tmp_path / "run")
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert type(theirs).__name__.lower().startswith(family.replace("_", ""))
    for text in TEXTS:
        ids = ours.tokenizer.encode(text)
        assert tokenizer(text)["input_ids"] == ids
        assert tokenizer.decode(ids) == ours.tokenizer.decode(ids, skip_special_tokens=False)
        tensor = torch.tensor([ids])
        with torch.no_grad():
            torch.testing.assert_close(ours.logits(tensor), theirs(tensor).logits, atol=1e-4, rtol=0)
    prompt = ours.tokenizer.encode("却说")
    greedy = theirs.generate(torch.tensor([prompt]), max_new_tokens=16, do_sample=False)[0, len(prompt) :].tolist()
    text = ours.generate("却说", max_new_tokens=16, temperature=0)
    assert text == ours.tokenizer.decode(greedy)
