"""Small text and small runs that the tests make themselves."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

from fangcun.config import load_recipe
from fangcun.console import Console
from fangcun.pipeline import run

TINY = [
    "--tokenizer.kind", "bpe",
    "--tokenizer.vocab_size", "400",
    "--model.block_size", "32",
    "--model.n_layer", "2",
    "--model.n_head", "2",
    "--model.n_embd", "32",
    "--train.global_batch_size", "4",
    "--train.micro_batch_size", "4",
    "--train.max_steps", "6",
    "--train.lr_warmup_steps", "2",
    "--train.log_interval", "1",
    "--train.save_interval", "2",
    "--train.num_threads", "1",
    "--eval.interval", "3",
    "--eval.max_iters", "2",
    "--samples.interval", "3",
    "--samples.max_new_tokens", "4",
    "--samples.prompts", "却说曹操",
    "--precision", "32-true",
]  # fmt: skip
"""Flags that turn the demo recipe into a run of a second or two."""


def tiny_flags(*more: str, leave_out: str = "") -> list[str]:
    """TINY with some flags changed or added, and one left out: `tiny_flags("--train.max_steps", "4")`."""
    merged: dict[str, list[str]] = {}
    for word in [*TINY, *more]:
        if word.startswith("--"):
            merged[word] = []
            current = merged[word]
        else:
            current.append(word)
    return [part for key, values in merged.items() if key != leave_out for part in (key, *values)]


def story(seed: int = 0, sentences: int = 400) -> str:
    """Chinese prose of sorts: sentences from a small grammar, the same for the same seed."""
    draw = random.Random(seed)
    who, what, whom, tail = (
        ["曹操", "刘备", "关羽", "张飞", "孔明", "周瑜"],
        ["见了", "笑谓", "大骂", "引军攻", "夜访"],
        ["众将", "吕布", "袁绍", "孙权", "百姓"],
        ["而去", "于城下", "不提", "大喜", "后人有诗"],
    )
    lines = []
    for number in range(sentences):
        lines.append(
            f"却说{draw.choice(who)}{draw.choice(what)}{draw.choice(whom)}，{draw.choice(tail)}。第{number}日，{draw.choice(who)}曰：“吾计成矣！”"
        )
    return "\n".join(lines) + "\n"


def write_story(folder: Path, seed: int = 0, sentences: int = 400) -> Path:
    """A text file of `story`."""
    file = folder / "story.txt"
    file.write_text(story(seed, sentences), encoding="utf-8", newline="\n")
    return file


def run_tiny(text: Path, out: Path, *flags: str, recipe: str = "demo", leave_out: str = "") -> int:
    """The whole way in this process; returns the exit code."""
    loaded = load_recipe(recipe, tiny_flags("--text", str(text), "--out", str(out), *flags, leave_out=leave_out))
    return run(loaded, console=Console(open(os.devnull, "w", encoding="utf-8")))


def fangcun(*arguments: str, timeout: float = 300, **kwargs) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "fangcun", *arguments],
        capture_output=True, text=True, encoding="utf-8", timeout=timeout, check=False, **kwargs,
    )  # fmt: skip


def weights_of(checkpoint: Path) -> bytes:
    """The bytes of a checkpoint's weights and optimizer state."""
    parts = ("model.safetensors", "training_state/optimizer.safetensors")
    return b"".join((checkpoint / part).read_bytes() for part in parts)
