"""The last page of a run: what it reached, three samples, where everything lies, what to try next. Read from files."""

from __future__ import annotations

import shlex
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

from fangcun.artifacts import list_checkpoints
from fangcun.console import Console, format_seconds
from fangcun.model import read_config
from fangcun.training.metrics import read_steps


def print_summary(run: Path, console: Console) -> None:
    """Print bits per byte before and after, samples, tokens/s, where things lie and three commands to try."""
    records = read_steps(run / "metrics.jsonl")
    samples = read_steps(run / "samples.jsonl")
    checkpoint = list_checkpoints(run)[-1]
    console.say("")
    for line in _results(records):
        console.say(line)
    last_step = max((s["step"] for s in samples), default=None)
    for sample in [s for s in samples if s["step"] == last_step][:3]:
        console.say(f"\n  {sample['prompt']}▸{sample['text']}")
    elsewhere = " (opens with transformers as it is)" if read_config(checkpoint).exportable else ""
    held = [name for name in ("recipe.yaml", "corpus", "tokenizer", "tokens", "metrics.jsonl", "samples.jsonl") if (run / name).exists()]  # fmt: skip
    program, prompt = _program(), samples[-1]["prompt"] if samples else "你好"
    console.say(
        f"\nThe model: {checkpoint}{elsewhere}\n"
        f"The run:   {run} ({', '.join(held)})\n\n"
        "Next:\n"
        f"  {program} generate {shlex.quote(str(run))} --prompt {shlex.quote(prompt)} --max-new-tokens 200 --stream\n"
        f"  {program} run demo --text my-novels/ --out runs/mine\n"
        f"  {program} recipes"
    )


def _program() -> str:
    """How to call this program from here: its name where the shell finds it, else the path it was started by."""
    if shutil.which("fangcun"):
        return "fangcun"
    beside = Path(sys.executable).with_name("fangcun")
    if not beside.is_file():
        return f"{shlex.quote(sys.executable)} -m fangcun"
    here = Path.cwd()
    return shlex.quote(str(beside.relative_to(here) if beside.is_relative_to(here) else beside))


def _results(records: list[dict[str, Any]]) -> list[str]:
    evaluations = [r for r in records if r.get("kind") == "eval" and r.get("val_loss") is not None]
    final = [r for r in records if r.get("kind") == "final"]
    steps = [r for r in records if r.get("kind") == "train"]
    lines = []
    if len(evaluations) > 1:
        lines.append(f"validation  before {_loss(evaluations[0])}   after {_loss(evaluations[-1])}")
    if final:
        lines.append(f"all of it   {_loss(final[-1])}")
    if steps:
        speed = statistics.median(float(r["tokens_per_second"]) for r in steps)
        lines.append(
            f"training    {steps[-1]['step']:,} steps, {steps[-1]['tokens']:,} tokens, {speed:,.0f} tokens/s, "
            f"{format_seconds(records[-1]['seconds'])}, memory {steps[-1]['memory_bytes'] / 2**20:,.0f} MiB"
        )
    return lines


def _loss(record: dict[str, Any]) -> str:
    bits = record["val_bits_per_byte"]
    mark = "" if record["val_comparable"] else " (not comparable: see tokens/manifest.json)"
    shown = f"{float(bits):.3f} bits per byte{mark}, " if bits is not None else ""
    return f"{shown}loss {float(record['val_loss']):.3f} (step {record['step']})"
