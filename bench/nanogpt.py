"""What the character-level comparisons share: nanoGPT trained on a text of ours, and one evaluation for both programs."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
from common import median_of, report, run_timed

_NANOGPT_LOSS = """
import json, sys, numpy as np, torch
sys.path.insert(0, sys.argv[1])
from model import GPT, GPTConfig
kept = torch.load(sys.argv[2], map_location="cpu"); T = int(sys.argv[4])
model = GPT(GPTConfig(**kept["model_args"])); model.load_state_dict(kept["model"]); model.eval()
ids = torch.from_numpy(np.fromfile(sys.argv[3], dtype=np.uint16).astype(np.int64))
n = (len(ids) - 1) // T; x, y = ids[:n * T].view(n, T), ids[1:n * T + 1].view(n, T); total, step = 0.0, max(1, 8192 // T)
with torch.no_grad():
    for i in range(0, n, step): total += model(x[i:i + step], y[i:i + step])[1].item() * len(x[i:i + step])
print(json.dumps(total / n))
"""

_FANGCUN_LOSS = """
import json, sys
from pathlib import Path
from fangcun.artifacts import list_checkpoints
from fangcun.evaluation import evaluate_windows
from fangcun.model import load_model
from fangcun.tokens import fixed_windows, open_split
run, T = Path(sys.argv[1]), int(sys.argv[2])
split, model = open_split(run / "tokens", "val"), load_model(list_checkpoints(run)[-1])
windows = fixed_windows(split, T, None)
print(json.dumps(evaluate_windows(model, split, windows, batch_size=max(1, 8192 // T), token_bytes=None).loss))
"""


def prepare_nanogpt(clone: Path, text: str, name: str = "shakespeare_char") -> Path:
    """The .bin files that nanoGPT's own prepare.py would make of `text`: one id a character, the last tenth held out."""
    folder = clone / "data" / name
    folder.mkdir(parents=True, exist_ok=True)
    characters = sorted(set(text))
    ids = {c: i for i, c in enumerate(characters)}
    cut = int(len(text) * 0.9)
    for split, part in (("train", text[:cut]), ("val", text[cut:])):
        np.array([ids[c] for c in part], dtype=np.uint16).tofile(folder / f"{split}.bin")
    meta = {"vocab_size": len(characters), "itos": dict(enumerate(characters)), "stoi": ids}
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta))
    return folder


def run_nanogpt(
    python: str, clone: Path, data: Path, flags: list[str], out: Path, *, seed: int, window: int
) -> dict[str, Any]:
    """Train nanoGPT and evaluate its checkpoint on every window of `window` tokens: seconds of the training command, loss."""
    # nanoGPT has no seed flag; its script seeds with 1337 + rank.
    script = clone / f"train_seed_{seed}.py"
    script.write_text((clone / "train.py").read_text().replace("1337", str(1337 + seed)))
    command = [python, script.name, "config/train_shakespeare_char.py", *flags, f"--dataset={data.name}"]
    seconds, _, _ = run_timed([*command, f"--out_dir={out}"], cwd=str(clone))
    script.unlink()
    evaluate = [python, "-c", _NANOGPT_LOSS, str(clone), str(out / "ckpt.pt"), str(data / "val.bin"), str(window)]
    return _record("nanogpt", seed, seconds, json.loads(run_timed(evaluate)[1].splitlines()[-1]))


def run_fangcun(label: str, words: list[str], run: Path, *, seed: int, window: int) -> dict[str, Any]:
    """`fangcun run` with `words`, evaluated in the same way: seconds of the whole command, from the text on, and loss."""
    command = [sys.executable, "-m", "fangcun", "run", *words, "--out", str(run), "--seed", str(seed)]
    seconds, _, _ = run_timed(command)
    evaluate = [sys.executable, "-c", _FANGCUN_LOSS, str(run), str(window)]
    return _record(label, seed, seconds, json.loads(run_timed(evaluate)[1].splitlines()[-1]))


def _record(program: str, seed: int, seconds: float, loss: float) -> dict[str, Any]:
    record = {"program": program, "seed": seed, "seconds": round(seconds, 1), "val_loss": round(loss, 4)}
    report(record)
    return record


def print_medians(records: list[dict[str, Any]]) -> None:
    """One line a program, with the share of nanoGPT's time."""
    theirs = [r for r in records if r["program"] == "nanogpt"]
    for program in dict.fromkeys(r["program"] for r in records):
        own = [r for r in records if r["program"] == program]
        share = f", {median_of(own, 'seconds') / median_of(theirs, 'seconds'):.3f} of nanoGPT's time" if theirs else ""
        print(
            f"{program}: median loss {median_of(own, 'val_loss'):.4f}, median {median_of(own, 'seconds'):.1f} s{share}"
        )
