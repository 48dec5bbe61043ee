"""How long until something answers: whole processes, medians.

python bench/startup.py [--run RUN] [--litgpt PATH-OF-LITGPT-COMMAND] [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

from common import report, run_timed


def first_token_seconds(run: str) -> float:
    """Wall time from the start of `fangcun generate` to the first character after the prompt."""
    prompt = "却说"
    command = [
        sys.executable,
        "-m",
        "fangcun",
        "generate",
        run,
        "--prompt",
        prompt,
        "--max-new-tokens",
        "8",
        "--stream",
    ]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    seen = b""
    while len(seen) <= len(prompt.encode()):
        if not (byte := process.stdout.read(1)):
            sys.exit("fangcun generate ended without a token")
        seen += byte
    seconds = time.perf_counter() - started
    process.wait()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="a trained run, for the time to the first token")
    parser.add_argument("--litgpt", help="litgpt's command, for its --help")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    questions = {
        "fangcun --help": lambda: run_timed([sys.executable, "-m", "fangcun", "--help"])[0],
        "fangcun run --help": lambda: run_timed([sys.executable, "-m", "fangcun", "run", "--help"])[0],
        "import torch": lambda: run_timed([sys.executable, "-c", "import torch"])[0],
    }
    if args.litgpt:
        questions["litgpt --help"] = lambda: run_timed([args.litgpt, "--help"])[0]
    if args.run:
        questions["fangcun generate, first token"] = lambda: first_token_seconds(args.run)
    times: dict[str, list[float]] = {name: [] for name in questions}
    for _ in range(args.rounds + 1):  # the first round warms the disk cache and is dropped
        for name, ask in questions.items():
            times[name].append(ask())
    for name, values in times.items():
        report(
            {"question": name, "median_s": round(statistics.median(values[1:]), 3), "min_s": round(min(values[1:]), 3)}
        )


if __name__ == "__main__":
    main()
