"""Our model beside another implementation of it: the same ids, the same logits, the same greedy text?

Greedy text is checked token by token: each token that the other writes must be our best one after the same beginning, or
lie within `tolerance` of it (two tokens that close are told apart by rounding alone).
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from fangcun.errors import FangcunError
from fangcun.export.gguf_file import export_gguf
from fangcun.export.hf import export_hf
from fangcun.export.verify_texts import PROMPTS, TEXTS
from fangcun.generation.language_model import LanguageModel, load

MAX_NEW_TOKENS = 32
_MODULES = {"hf": "transformers", "gguf": "xllamacpp"}
_SCRIPTS = {"hf": "with_transformers.py", "gguf": "with_llama_cpp.py"}


@dataclass(frozen=True)
class Check:
    """One line of the comparison."""

    name: str
    result: str
    passed: bool


def verify(
    path: str | Path, against: Literal["hf", "gguf"], other: str | Path | None = None, *, tolerance: float = 1e-3
) -> list[Check]:
    """Compare a model with transformers (`hf`) or llama.cpp (`gguf`).

    Args:
        path: a run, a checkpoint, or a Hugging Face folder; computed here in float32.
        against: which implementation.
        other: what that one opens; None: an export to float32, made in a temporary folder.
        tolerance: how far below our best logit a token of the other's greedy text may lie; ten times that for the
            difference of logits themselves.

    Raises FangcunError when the other implementation is not installed or cannot open the model.
    """
    module = _MODULES[against]
    if importlib.util.find_spec(module) is None:
        raise FangcunError(
            f"verify --against {against} needs the package {module}, which is not installed: pip install {module}"
        )
    with tempfile.TemporaryDirectory() as scratch:
        if other is None:
            out = Path(scratch) / "model"
            theirs = export_hf(path, out, dtype="f32") if against == "hf" else export_gguf(path, out, dtype="f32")[0]
        else:
            theirs = _named(Path(other), against)
        lm = load(path, device="cpu")
        job = _job(lm, theirs)
        if against == "gguf":  # llama.cpp also ends at special tokens that it knows by name, such as <|im_end|>
            job["end_ids"] += sorted(lm.tokenizer.special_ids - set(job["end_ids"]))
        found = _run(job, _SCRIPTS[against], Path(scratch) / "answer.json", module)
    return _compare(lm, job, found, against, tolerance)


def _named(other: Path, against: str) -> Path:
    """The GGUF file in a folder, or what was named."""
    if not other.exists():
        raise FangcunError(
            f"{other} does not exist. Expected a {'GGUF file' if against == 'gguf' else 'model folder'}."
        )
    if against == "gguf" and other.is_dir():
        files = sorted(other.glob("*.gguf"))
        if len(files) != 1:
            raise FangcunError(f"{other} has {len(files)} GGUF files, expected one. Name the file itself.")
        return files[0]
    return other


def _job(lm: LanguageModel, theirs: Path) -> dict[str, Any]:
    context = lm.config.block_size
    longest = max(1, context - MAX_NEW_TOKENS)
    prompts = [lm.tokenizer.encode(prompt)[-longest:] for prompt in PROMPTS]
    return {
        "path": str(theirs.resolve()),
        "texts": list(TEXTS),
        "prompts": prompts,
        "rooms": [min(MAX_NEW_TOKENS, context - len(prompt)) for prompt in prompts],
        "vocab_size": lm.tokenizer.vocab_size,
        "end_ids": list(dict.fromkeys([lm.tokenizer.eos_id, *lm.stop_ids])),
        "context_tokens": context,
        "threads": torch.get_num_threads(),
    }


def _run(job: dict[str, Any], script: str, answer: Path, module: str) -> dict[str, Any]:
    """The other side in a process of its own, offline."""
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"}
    environment["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", f"fangcun.export.{script.removesuffix('.py')}"],
        input=json.dumps(job | {"answer": str(answer)}), capture_output=True, text=True, encoding="utf-8",
        errors="replace", check=False, env=environment,
    )  # fmt: skip
    if done.returncode != 0 or not answer.is_file():
        last = "\n".join(done.stderr.strip().splitlines()[-6:])
        raise FangcunError(f"{module} could not work with {job['path']} (exit code {done.returncode}): {last}")
    return json.loads(answer.read_text(encoding="utf-8"))


def _compare(
    lm: LanguageModel, job: dict[str, Any], found: dict[str, Any], against: str, tolerance: float
) -> list[Check]:
    texts = zip(job["texts"], found["ids"], strict=True)
    wrong = [text for text, ids in texts if lm.tokenizer.encode(text) != ids]
    count = len(job["texts"])
    said = f"{count - len(wrong)} of {count} texts equal" + (f"; first other: {wrong[0]!r}" if wrong else "")
    checks = [Check("token ids", said, not wrong)]
    differences, near, real, tokens = [], 0, [], 0
    rows = job["vocab_size"]
    for number, prompt in enumerate(job["prompts"]):
        theirs = found["continuations"][number]
        logits = lm.logits([[*prompt, *theirs]])[0, len(prompt) - 1 :, :rows]
        if found["logits"][number] is not None:
            other = torch.tensor(found["logits"][number])
            ours = logits[0].log_softmax(-1) if against == "gguf" else logits[0]
            differences.append(float((ours - other).abs().max()))
        for step, index in enumerate(theirs):
            gap = float(logits[step].max() - logits[step, index])
            tokens += 1
            if int(logits[step].argmax()) != index:
                near += gap <= tolerance
                if gap > tolerance:
                    real.append(f"{PROMPTS[number]!r}, token {step + 1}, {gap:.4f} below our best")
                    break
        ended = bool(theirs) and theirs[-1] in job["end_ids"]
        if not ended and len(theirs) < job["rooms"][number]:
            real.append(f"{PROMPTS[number]!r} ended after {len(theirs)} of {job['rooms'][number]} tokens")
    what = "log-probabilities" if against == "gguf" else "logits"
    worst = max(differences, default=math.inf)  # nothing compared is nothing proved
    checks.append(
        Check(f"{what}, largest difference", f"{worst:.2e} ({len(differences)} prompts)", worst <= 10 * tolerance)
    )
    said = f"{len(job['prompts'])} prompts, {tokens} tokens, {near} within {tolerance:g} of our best, {len(real)} prompts differ"
    checks.append(Check("greedy text", said + (f": {real[0]}" if real else ""), not real))
    return checks
