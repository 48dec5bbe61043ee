"""nanoGPT's character-level Shakespeare job for a CPU, against the recipe that reproduces it and the ones that are faster.

    python bench/shakespeare.py --text tinyshakespeare.txt --nanogpt CLONE --peer-python PYTHON [--seeds 3] [--only LABEL]

The programs take turns, a seed each. Time is the wall time of the whole command, from text (Fangcun) or from prepared
.bin files (nanoGPT) to the last checkpoint. Loss is over every non-overlapping window of 64 tokens of the validation
split, for all of them; evaluation of the finished checkpoint is not part of the time.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from nanogpt import prepare_nanogpt, print_medians, run_fangcun, run_nanogpt

WINDOW = 64
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
_LONG = ["shakespeare-char-fast", "--model.n_layer", "3", "--train.max_steps", "2200", "--optimizer.muon_lr", "0.02"]
_LONG += ["--optimizer.lr", "0.01", "--optimizer.weight_decay", "0.02"]
OURS = {
    "shakespeare-char": ["shakespeare-char"],
    "shakespeare-char-fast": ["shakespeare-char-fast"],
    "shakespeare-char-fast, long": _LONG,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--nanogpt", type=Path, required=True)
    parser.add_argument("--peer-python", type=os.path.abspath, default=sys.executable)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=["nanogpt", *OURS], help="leave the others out")
    args = parser.parse_args()
    chosen = args.only or ["nanogpt", *OURS]
    data = prepare_nanogpt(args.nanogpt, args.text.read_text(encoding="utf-8"))
    records = []
    with tempfile.TemporaryDirectory() as work:
        for seed in range(args.seeds):
            if "nanogpt" in chosen:
                out = Path(work) / f"nanogpt-{seed}"
                records.append(run_nanogpt(args.peer_python, args.nanogpt, data, _FLAGS, out, seed=seed, window=WINDOW))
            for number, (label, words) in enumerate(OURS.items()):
                if label in chosen:
                    words = [*words, "--text", str(args.text)]
                    run = Path(work) / f"fangcun-{number}-{seed}"
                    records.append(run_fangcun(label, words, run, seed=seed, window=WINDOW))
    print_medians(records)


if __name__ == "__main__":
    main()
