"""Seconds of corpus and packing in one process with workers, and as tasks of an executor on the same machine.

    python bench/tasks.py FILE... --tokenizer FOLDER [--megabytes 100] [--tasks 4] [--workers 2] [--executors local] [--rounds 3]

FILE is JSON lines with a field text. Its documents are repeated, each time behind another number, until there is enough
text, in as many files as there are tasks; copies are not looked for. The files that come out are compared. One JSON line
a measurement, in turn, and medians at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import median_of, report, run_timed

STAGES = {"corpus": "corpus", "pack": "tokens"}


def write_text(files: list[str], folder: Path, megabytes: float, count: int) -> None:
    """About `megabytes` of JSON lines in `count` files."""
    records = [json.loads(line) for file in files for line in Path(file).read_text(encoding="utf-8").splitlines()]
    texts = [record["text"] for record in records if isinstance(record.get("text"), str)]
    folder.mkdir()
    round_ = 0
    for number in range(count):
        left = megabytes * 1e6 / count
        with open(folder / f"{number:03d}.jsonl", "w", encoding="utf-8") as out:
            while left > 0:
                for text in texts:
                    line = json.dumps({"text": f"{round_} {text}"}, ensure_ascii=False) + "\n"
                    left -= len(line.encode())
                    out.write(line)
                    if left <= 0:
                        break
                round_ += 1


def content(folder: Path) -> dict[str, str]:
    """The sha256 of an artefact's files."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return {name: entry["sha256"] for name, entry in manifest["files"].items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--megabytes", type=float, default=100)
    parser.add_argument("--tasks", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--executors", nargs="+", default=["local"], choices=["local", "ray"])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="bench-tasks-"))
    try:
        write_text(args.files, work / "in", args.megabytes, args.tasks)
        records: list[dict[str, Any]] = []
        ways = {
            "workers": ["--corpus.workers", str(args.workers), "--tokens.workers", str(args.workers)],
            **{
                name: [
                    "--cluster.executor",
                    name,
                    "--cluster.workers",
                    str(args.workers),
                    "--cluster.tasks",
                    str(args.tasks),
                ]
                for name in args.executors
            },
        }
        for number in range(args.rounds):
            for way, flags in ways.items():
                out = work / f"{way}-{number}"
                common = ["demo", "--text", str(work / "in"), "--out", str(out), "--corpus.preset", "web", *flags]
                common += ["--dedup.near", "false", "--dedup.exact", "false", "--tokenizer.path", args.tokenizer]
                for verb, stage in STAGES.items():
                    seconds, _, _ = run_timed([sys.executable, "-m", "fangcun", verb, *common])
                    record = {"way": way, "verb": verb, "seconds": round(seconds, 2), "load": os.getloadavg()[0]}
                    record["same"] = content(out / stage) == content(work / "workers-0" / stage)
                    records.append(record)
                    report(record)
        for way in ways:
            for verb in STAGES:
                chosen = [record for record in records if record["way"] == way and record["verb"] == verb]
                report({"way": way, "verb": verb, "median_seconds": median_of(chosen, "seconds")})
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
