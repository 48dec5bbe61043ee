"""Time to nanoGPT's own final loss on the novel 红楼梦, character by character, at its debug setting.

    python bench/honglou.py --text hongloumeng.txt --nanogpt CLONE --peer-python PYTHON [--seeds 3]
        [--peer-record LINE.json | --peer-steps 30]

nanoGPT's job (2 layers, 4 heads, 128 wide, block 256, batch 64, 5,000 steps, dropout 0.2) takes hours on two cores. It is
run once; or `--peer-record` takes the JSON line of an earlier run; or, with `--peer-steps N`, it runs N steps, its time is
5,000 times the median of these, and its final loss that of our recipe `honglou-char`, which does the same training: an
estimate, and marked so. Time is the wall time of the whole command. Loss is over every non-overlapping window of 256
tokens of the validation split, for all.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import report, run_timed
from nanogpt import prepare_nanogpt, print_medians, run_fangcun, run_nanogpt

WINDOW = 256
STEPS = 5000
_FLAGS = [
    "--device=cpu",
    "--compile=False",
    "--eval_interval=1000",
    "--eval_iters=20",
    "--log_interval=1",
    "--block_size=256",
    "--batch_size=64",
    "--n_layer=2",
    "--n_head=4",
    "--n_embd=128",
    f"--lr_decay_iters={STEPS}",
    "--dropout=0.2",
    "--always_save_checkpoint=True",
]


def median_step_seconds(python: str, clone: Path, data: Path, steps: int, out: str) -> float:
    """The median of nanoGPT's logged step times, without the first five and the one that evaluates."""
    command = [python, "train.py", "config/train_shakespeare_char.py", *_FLAGS, f"--max_iters={steps}"]
    _, printed, _ = run_timed([*command, f"--dataset={data.name}", f"--out_dir={out}"], cwd=str(clone))
    times = [float(ms) / 1000 for ms in re.findall(r"^iter \d+: .*time ([\d.]+)ms", printed, re.MULTILINE)]
    return statistics.median(times[5:-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--nanogpt", type=Path, required=True)
    parser.add_argument("--peer-python", type=os.path.abspath, default=sys.executable)
    parser.add_argument("--peer-record", type=Path, help="a file with the JSON line that nanoGPT's run printed")
    parser.add_argument("--peer-steps", type=int, help="estimate nanoGPT from so many steps and from honglou-char")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:

        def ours(recipe: str, seed: int) -> dict[str, Any]:
            words = [recipe, "--text", str(args.text)]
            return run_fangcun(recipe, words, Path(work) / f"{recipe}-{seed}", seed=seed, window=WINDOW)

        theirs: dict[str, Any] | None = None
        if args.peer_record:
            theirs = json.loads(args.peer_record.read_text(encoding="utf-8"))
            report(theirs)
        else:
            data = prepare_nanogpt(args.nanogpt, args.text.read_text(encoding="utf-8"), "honglou_char")
            out = str(Path(work) / "nanogpt")
            if args.peer_steps:
                step = median_step_seconds(args.peer_python, args.nanogpt, data, args.peer_steps, out)
                report({"program": "nanogpt", "step_seconds": round(step, 3)})
            else:
                flags = [*_FLAGS, f"--max_iters={STEPS}"]
                theirs = run_nanogpt(args.peer_python, args.nanogpt, data, flags, Path(out), seed=0, window=WINDOW)
        fast = [ours("honglou-char-fast", seed) for seed in range(args.seeds)]
        if theirs is None:
            theirs = ours("honglou-char", 0) | {"program": "nanogpt", "seconds": round(step * STEPS), "estimated": True}
            report(theirs)
    print_medians([theirs, *fast])
    reached = sum(record["val_loss"] <= theirs["val_loss"] for record in fast)
    print(f"nanoGPT's final loss was reached by {reached} of {len(fast)} runs")


if __name__ == "__main__":
    main()
