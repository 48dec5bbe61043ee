"""nanoGPT's character-level Shakespeare job for a CPU, against the recipe that reproduces it.

    python bench/shakespeare.py --text tinyshakespeare.txt --nanogpt CLONE --peer-python PYTHON [--seeds 3]

The two programs take turns, a seed each. Time is the wall time of the whole command, from text (Fangcun) or from prepared
.bin files (nanoGPT) to the last checkpoint. Loss is over every window of the validation split, not a sample of it.
"""

from __future__ import annotations

import argparse
import json
import pickle
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import median_of, report, run_timed

_FLAGS = [
    "--device=cpu",
    "--compile=False",
    "--eval_iters=20",
    "--log_interval=1",
    "--block_size=64",
    "--batch_size=12",
    "--n_layer=4",
    "--n_head=4",
    "--n_embd=128",
    "--max_iters=2000",
    "--lr_decay_iters=2000",
    "--dropout=0.0",
]

_EVALUATE = """
import json, sys, numpy as np, torch
sys.path.insert(0, sys.argv[1])
from model import GPT, GPTConfig
kept = torch.load(sys.argv[2], map_location="cpu")
model = GPT(GPTConfig(**kept["model_args"])); model.load_state_dict(kept["model"]); model.eval()
ids = torch.from_numpy(np.fromfile(sys.argv[3], dtype=np.uint16).astype(np.int64))
n = (len(ids) - 1) // 64; x, y = ids[:n * 64].view(n, 64), ids[1:n * 64 + 1].view(n, 64); total = 0.0
with torch.no_grad():
    for i in range(0, n, 128): total += model(x[i:i + 128], y[i:i + 128])[1].item() * len(x[i:i + 128])
print(json.dumps(total / n))
"""


def prepare_nanogpt(clone: Path, text: str) -> Path:
    """The .bin files that nanoGPT's own prepare.py would make (it downloads the text)."""
    folder = clone / "data" / "shakespeare_char"
    folder.mkdir(parents=True, exist_ok=True)
    characters = sorted(set(text))
    ids = {c: i for i, c in enumerate(characters)}
    cut = int(len(text) * 0.9)
    for name, part in (("train", text[:cut]), ("val", text[cut:])):
        np.array([ids[c] for c in part], dtype=np.uint16).tofile(folder / f"{name}.bin")
    meta = {"vocab_size": len(characters), "itos": dict(enumerate(characters)), "stoi": ids}
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--nanogpt", type=Path, required=True)
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    data = prepare_nanogpt(args.nanogpt, args.text.read_text(encoding="utf-8"))
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as work:
        for seed in range(args.seeds):
            out = f"{work}/nanogpt-{seed}"
            # nanoGPT has no seed flag; its script seeds with 1337 + rank.
            script = (args.nanogpt / "train.py").read_text().replace("1337", str(1337 + seed))
            (args.nanogpt / "train_seeded.py").write_text(script)
            command = [
                args.peer_python,
                "train_seeded.py",
                "config/train_shakespeare_char.py",
                *_FLAGS,
                f"--out_dir={out}",
            ]
            seconds, _, _ = run_timed(command, cwd=str(args.nanogpt))
            evaluate = [args.peer_python, "-c", _EVALUATE, str(args.nanogpt), f"{out}/ckpt.pt", str(data / "val.bin")]
            loss = json.loads(run_timed(evaluate)[1].splitlines()[-1])
            theirs.append(
                {"program": "nanogpt", "seed": seed, "seconds": round(seconds, 1), "val_loss": round(loss, 4)}
            )
            report(theirs[-1])

            run = Path(work) / f"fangcun-{seed}"
            command = [sys.executable, "-m", "fangcun", "run", "shakespeare-char", "--text", str(args.text)]
            seconds, _, _ = run_timed([*command, "--out", str(run), "--seed", str(seed)])
            records = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
            loss = next(r["val_loss"] for r in records if r["kind"] == "final")
            ours.append({"program": "fangcun", "seed": seed, "seconds": round(seconds, 1), "val_loss": round(loss, 4)})
            report(ours[-1])
    for name, records in (("nanogpt", theirs), ("fangcun", ours)):
        print(f"{name}: median loss {median_of(records, 'val_loss'):.4f}, median {median_of(records, 'seconds'):.1f} s")


if __name__ == "__main__":
    main()
