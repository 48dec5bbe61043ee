"""Shipped recipes take two steps of training, reduced in size only: shape, tokenizer kind, schedule and optimizer are theirs."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from fangcun import cli
from fangcun.config import load_recipe

SMALL = (
    "--train.max_steps 2 --train.global_batch_size 4 --train.micro_batch_size 2 --model.block_size 32 --model.n_layer 2"
)
SMALL += " --eval.max_iters 1 --eval.final_max_iters 1 --samples.max_new_tokens 4 --device cpu --precision 32-true --compile false"
FREE_VOCABULARY = "--model.vocab_size null --model.padded_vocab_size null"
NARROW = {
    "demo": "--model.n_embd 32",
    "shakespeare-char": "--model.n_embd 32",
    "honglou-char": "--model.n_embd 32",
    "shakespeare-char-fast": "--model.n_embd 32",
    "honglou-char-fast": "--model.n_embd 32",
    "single-gpu-gated": f"--model.n_embd 48 --model.intermediate_size 64 {FREE_VOCABULARY}",
    "microstories-44m": f"--model.n_embd 50 --model.head_size 8 --model.intermediate_size 64 {FREE_VOCABULARY}",
    "wiki-qwen2-120m": "--model.n_embd 64 --model.intermediate_size 64",
}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = ["却说", "曹操", "大喜", "，", "。", "刘备", "引兵", "城下", "not", " in ", "the book"]
    draw = random.Random(1)
    folder = tmp_path_factory.mktemp("text")
    for i in range(4):
        (folder / f"{i}.txt").write_text("".join(draw.choice(words) for _ in range(600)), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def tokenizer(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stands for the tokenizers that some recipes borrow."""
    out = tmp_path_factory.mktemp("borrowed") / "run"
    assert (
        cli.main(
            [
                "tokenizer",
                "demo",
                "--text",
                str(text),
                "--tokenizer.kind",
                "bpe",
                "--tokenizer.vocab_size",
                "300",
                "--out",
                str(out),
            ]
        )
        == 0
    )
    return out / "tokenizer"


@pytest.mark.parametrize("name", sorted(NARROW))
def test_a_shipped_recipe_trains_two_steps_at_reduced_size(
    name: str, text: Path, tokenizer: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    borrowed = ["--tokenizer.path", str(tokenizer)] if load_recipe(name).recipe.tokenizer.source else []
    words = ["run", name, "--text", str(text), "--out", str(out), *borrowed, *SMALL.split(), *NARROW[name].split()]
    assert cli.main(words) == 0
    steps = [json.loads(line).get("step") for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert max(step for step in steps if step is not None) == 2
    assert (out / "checkpoints" / "step-00000002" / "model.safetensors").is_file()
