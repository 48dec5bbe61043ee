"""The last page of a run: what it reached, three samples, where everything lies, what to try next. Read from files."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from fangcun.artifacts import list_checkpoints
from fangcun.console import Console, format_seconds
from fangcun.training.metrics import read_steps


def print_summary(run: Path, console: Console, *, tokenizer: Path) -> None:
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
    prompt = samples[-1]["prompt"] if samples else "你好"
    console.say(
        f"\nThe model: {checkpoint} (opens with transformers as it is)\n"
        f"The run:   {run} (recipe.yaml, corpus, tokenizer, tokens, metrics.jsonl, samples.jsonl)\n\n"
        "Next:\n"
        f"  fangcun generate {run} --prompt {json.dumps(prompt, ensure_ascii=False)} --max-new-tokens 200 --stream\n"
        f"  fangcun run demo --text my-novels/ --out runs/mine\n"
        f"  python -c \"import fangcun; print(fangcun.load('{run}').generate({prompt!r}, max_new_tokens=64))\""
    )


def _results(records: list[dict[str, Any]]) -> list[str]:
    measured = [r for r in records if r.get("kind") in ("eval", "final") and r.get("val_loss") is not None]
    steps = [r for r in records if r.get("kind") == "train"]
    lines = []
    if measured:
        lines.append(f"validation  before {_loss(measured[0])}   after {_loss(measured[-1])}")
    if steps:
        speed = statistics.median(float(r["tokens_per_second"]) for r in steps)
        lines.append(
            f"training    {steps[-1]['step']:,} steps, {steps[-1]['tokens']:,} tokens, {speed:,.0f} tokens/s, "
            f"{format_seconds(records[-1].get('seconds', steps[-1]['seconds']))}, memory {steps[-1]['memory_bytes'] / 2**20:,.0f} MiB"
        )
    return lines


def _loss(record: dict[str, Any]) -> str:
    bits = record["val_bits_per_byte"]
    return (
        f"{bits:.3f} bits per byte, " if bits is not None else ""
    ) + f"loss {record['val_loss']:.3f} (step {record['step']})"
