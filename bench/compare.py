"""Several programs in turn, so that a drift of the machine's speed meets them all.

    python bench/compare.py train_step.py --shape c --dtype fp32 --rounds 3 \
        --with fangcun=PYTHON --with litgpt=PYTHON --with litgpt+compile=PYTHON [-- more flags of the script]

`IMPL+FLAG[+FLAG]=PYTHON` gives one program flags of its own: `fangcun+checkpointing`, `nanogpt+compile`,
`fangcun+family:mistral`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from common import median_of, report, run_timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("script", choices=["train_step.py", "generation.py"])
    parser.add_argument("--with", dest="programs", action="append", required=True, metavar="IMPL=PYTHON")
    parser.add_argument("--rounds", type=int, default=3)
    args, more = parser.parse_known_args()
    more = [word for word in more if word != "--"]
    records: dict[str, list[dict]] = {}
    for _ in range(args.rounds):
        for program in args.programs:
            impl, _, python = program.partition("=")
            name, *flags = impl.split("+")
            own = [word for flag in flags for word in f"--{flag}".split(":")]
            command = [python, str(Path(__file__).parent / args.script), "--impl", name, *own, *more]
            record = json.loads(run_timed(command)[1].splitlines()[-1])
            report(record)
            records.setdefault(impl, []).append(record)
    for impl, found in records.items():
        speed, memory = median_of(found, "tokens_per_second"), median_of(found, "peak_memory_mib")
        share = f", {median_of(found, 'share_of_ceiling'):.0%} of the ceiling" if "share_of_ceiling" in found[0] else ""
        print(f"{impl}: median {speed:,.1f} tokens/s{share}, peak memory {memory:,.0f} MiB, {len(found)} rounds")


if __name__ == "__main__":
    main()
