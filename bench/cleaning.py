"""MB/s of cleaning, filters and sketches of duplicates, by preset, in one process.

    python bench/cleaning.py FILE... [--presets none novel news web dialogue] [--rounds 3]

Reading the files is not part of the time. Processor time, so that other work beside it counts little. One JSON line a round.
"""

from __future__ import annotations

import argparse
import time

from common import median_of, report

from fangcun.config import CorpusConfig, Rules, load_recipe, preset_names
from fangcun.corpus.process import Worker
from fangcun.corpus.readers import read_raw
from fangcun.corpus.report import ReadReport
from fangcun.corpus.sources import Source

_BATCH = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--presets", nargs="*", choices=preset_names(), default=preset_names())
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    config = CorpusConfig(paths=args.files, max_broken_share=1.0)
    texts = [document.text for document in read_raw(Source(config), ReadReport())]
    megabytes = sum(len(text.encode(errors="replace")) for text in texts) / 1e6
    for preset in args.presets:
        recipe = load_recipe("demo", ["--corpus.preset", preset]).recipe
        worker, records = Worker([Rules(recipe.clean, recipe.filter, recipe.dedup)]), []
        worker.work((0, texts[:_BATCH]))  # tables are made at first use
        for _ in range(args.rounds):
            began, kept = time.process_time(), 0
            for start in range(0, len(texts), _BATCH):
                outcomes, *_ = worker.work((0, texts[start : start + _BATCH]))
                kept += sum(bool(outcome.id) for outcome in outcomes)
            seconds = time.process_time() - began
            records.append(
                {
                    "preset": preset,
                    "documents": len(texts),
                    "kept": kept,
                    "mb_per_second": round(megabytes / seconds, 1),
                }
            )
            report(records[-1])
        print(f"{preset}: median {median_of(records, 'mb_per_second')} MB/s of processor time")


if __name__ == "__main__":
    main()
