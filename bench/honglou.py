"""Time to nanoGPT's own final loss on the novel 红楼梦, character by character, at its debug setting.

    python bench/honglou.py --text hongloumeng.txt --nanogpt CLONE --peer-python PYTHON [--seeds 3] [--peer-record LINE.json]

nanoGPT's job (2 layers, 4 heads, 128 wide, block 256, batch 64, 5,000 steps, dropout 0.2) takes hours on two cores; it is
run once, and `--peer-record` takes the JSON line of an earlier run instead. Time is the wall time of the whole command.
Loss is over every non-overlapping window of 256 tokens of the validation split, for both.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from common import report
from nanogpt import prepare_nanogpt, print_medians, run_fangcun, run_nanogpt

WINDOW = 256
_FLAGS = [
    "--device=cpu",
    "--compile=False",
    "--eval_interval=1000",
    "--eval_iters=20",
    "--log_interval=10",
    "--block_size=256",
    "--batch_size=64",
    "--n_layer=2",
    "--n_head=4",
    "--n_embd=128",
    "--max_iters=5000",
    "--lr_decay_iters=5000",
    "--dropout=0.2",
    "--always_save_checkpoint=True",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--nanogpt", type=Path, required=True)
    parser.add_argument("--peer-python", type=os.path.abspath, default=sys.executable)
    parser.add_argument("--peer-record", type=Path, help="a file with the JSON line that nanoGPT's run printed")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        if args.peer_record:
            theirs = json.loads(args.peer_record.read_text(encoding="utf-8"))
            report(theirs)
        else:
            data = prepare_nanogpt(args.nanogpt, args.text.read_text(encoding="utf-8"), "honglou_char")
            out = Path(work) / "nanogpt"
            theirs = run_nanogpt(args.peer_python, args.nanogpt, data, _FLAGS, out, seed=0, window=WINDOW)
        words = ["honglou-char-fast", "--text", str(args.text)]
        ours = [
            run_fangcun("honglou-char-fast", words, Path(work) / f"fangcun-{seed}", seed=seed, window=WINDOW)
            for seed in range(args.seeds)
        ]
    print_medians([theirs, *ours])
    reached = sum(record["val_loss"] <= theirs["val_loss"] for record in ours)
    print(f"nanoGPT's final loss was reached by {reached} of {len(ours)} runs")


if __name__ == "__main__":
    main()
