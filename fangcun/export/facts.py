"""What is known of a model: read from its own folder and from the run that it came from. Nothing is guessed."""

from __future__ import annotations

import io
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard

from fangcun.artifacts import MANIFEST
from fangcun.config import ModelConfig
from fangcun.export.source import Source, read_json

_SAMPLE_BYTES = 1 << 18
_MANY = 12


@dataclass
class Facts:
    """None, and empty lists, where something is not known."""

    config: ModelConfig
    parameters: int
    vocab_size: int
    tokenizer_kind: str
    has_chat_template: bool
    eos_token: str
    has_run: bool = False
    step: int | None = None
    tokens_seen: int | None = None
    """Target tokens of training, repeated passes counted each time."""
    seconds: float | None = None
    val_loss: float | None = None
    val_bits_per_byte: float | None = None
    val_comparable: bool = True
    val_step: int | None = None
    whole_split: bool = False
    """Whether the figures are of the whole validation split, or of its first windows."""
    sources: list[str] = field(default_factory=list)
    corpus: dict[str, Any] = field(default_factory=dict)
    """Counts of the corpus: train and val with documents, characters and bytes."""
    token_counts: dict[str, Any] = field(default_factory=dict)
    drops: dict[str, dict[str, int]] = field(default_factory=dict)
    """Rule -> documents, lines and bytes that it left out."""
    languages: list[str] = field(default_factory=list)
    recipe: dict[str, Any] = field(default_factory=dict)
    """The settings of the run, flat: "train.max_steps" and so on."""
    programs: list[str] = field(default_factory=list)


def gather(source: Source) -> Facts:
    """The facts of a model that is open. Files of the run that are missing leave their facts unknown."""
    tokenizer = source.tokenizer
    names = [
        n for n in source.names if not (source.config.tie_embeddings and n in ("lm_head.weight", "embed_out.weight"))
    ]
    facts = Facts(
        config=source.config,
        parameters=sum(math.prod(source.shape(name)) for name in names),
        vocab_size=tokenizer.vocab_size,
        tokenizer_kind=type(tokenizer.backend.model).__name__,
        has_chat_template=tokenizer.chat_template is not None and not is_base_model(source.folder),
        eos_token=tokenizer.eos_token,
    )
    checkpoint = read_json(source.folder / MANIFEST)
    if checkpoint.get("kind") != "checkpoint":
        return facts
    facts.has_run = True
    facts.step, facts.tokens_seen = checkpoint["counts"].get("step"), checkpoint["counts"].get("tokens")
    facts.val_loss, facts.val_step = checkpoint["counts"].get("val_loss"), facts.step
    facts.recipe = checkpoint["settings"].get("recipe", {})
    facts.programs = [str(checkpoint.get("program"))]
    facts.seconds = read_json(source.folder / "training_state" / "progress.json").get("seconds")
    if source.folder.parent.name == "checkpoints":
        _read_run(facts, source.folder.parent.parent)
    return facts


def is_base_model(folder: Path) -> bool:
    """Whether a checkpoint comes from pretraining alone: its tokenizer may hold a chat template that it never saw."""
    checkpoint = read_json(folder / MANIFEST)
    recipe = checkpoint.get("settings", {}).get("recipe") or {}
    tuned = any(key.startswith(("sft.", "dpo.", "chat.", "finetune")) for key in recipe)
    return checkpoint.get("kind") == "checkpoint" and bool(recipe) and not tuned


def _read_run(facts: Facts, run: Path) -> None:
    _read_metrics(facts, run / "metrics.jsonl")
    corpus = read_json(run / "corpus" / MANIFEST)
    if corpus:
        facts.corpus = corpus["counts"]
        facts.sources = _sources(corpus)
        facts.drops = read_json(run / "corpus" / "drops.json").get("rules") or {}
        facts.languages = _languages(run / "corpus")
    facts.token_counts = read_json(run / "tokens" / MANIFEST).get("counts", {})
    report = read_json(run / "tokenizer" / MANIFEST)
    if kind := report.get("settings", {}).get("kind"):
        facts.tokenizer_kind = f"{facts.tokenizer_kind} ({kind})"


def _read_metrics(facts: Facts, file: Path) -> None:
    """Validation figures of the step itself, or of the last step before it; a measurement of the whole split comes first."""
    if not file.is_file():
        return
    found: dict[str, Any] | None = None
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:  # a torn last line
            continue
        measured = record.get("kind") in ("eval", "final") and record.get("val_loss") is not None
        if measured and (facts.step is None or record["step"] <= facts.step):
            found = record
    if found is not None:
        facts.val_loss, facts.val_bits_per_byte = found["val_loss"], found.get("val_bits_per_byte")
        facts.val_step, facts.whole_split = found["step"], found["kind"] == "final"
        facts.val_comparable = bool(found.get("val_comparable", True))


def _sources(corpus: dict[str, Any]) -> list[str]:
    """Names of what was read, without the folders of the machine that it was read on."""
    if builtin := corpus["settings"].get("builtin"):
        return [f"built-in text: {builtin}"]
    names = [f"{Path(entry['path']).name} ({entry['size_bytes']:,} bytes)" for entry in corpus.get("inputs", [])]
    return names if len(names) <= _MANY else [*names[:_MANY], f"… {len(names) - _MANY:,} more"]


def _languages(corpus: Path) -> list[str]:
    """zh, en: by the share of hanzi and of Latin letters in the beginning of the text."""
    sample = ""
    for file in sorted(corpus.glob("train-*.jsonl.zst"))[:1]:
        with open(file, "rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
            for line in io.BytesIO(stream.read(_SAMPLE_BYTES)):
                try:
                    sample += json.loads(line).get("text", "")
                except ValueError:  # the last line was cut; one long document says enough all the same
                    sample += line.decode("utf-8", "ignore")
    letters = len(re.findall(r"\w", sample)) or 1
    shares = {
        "zh": len(re.findall(r"[\u4e00-\u9fff]", sample)) / letters,
        "en": len(re.findall("[A-Za-z]", sample)) / letters,
    }
    return [name for name, share in shares.items() if share > 0.15]
