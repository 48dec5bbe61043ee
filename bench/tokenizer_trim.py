"""What trimming a borrowed tokenizer to a text costs in tokens, at several sizes, and how long it takes.

    python bench/tokenizer_trim.py TEXT TOKENIZER … [--sizes 8000 4000]

Prints a JSON line a tokenizer and size; size null is what the text needs to be cut as before.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from common import peak_memory_mib, report

from fangcun.tokenizer import compare_tokens, count_tokens, import_tokenizer, trim_tokenizer
from fangcun.tokenizer.sample import blocks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("tokenizers", type=Path, nargs="+")
    parser.add_argument("--sizes", type=int, nargs="*", default=[8000, 6000, 4000, 2500])
    given = parser.parse_args()
    texts = list(blocks(given.text.read_text(encoding="utf-8"), 1 << 18))
    for path in given.tokenizers:
        tokenizer = import_tokenizer(path).tokenizer
        started = time.perf_counter()
        counts = count_tokens(tokenizer, texts)
        count_seconds = time.perf_counter() - started
        for size in (None, *given.sizes):
            started = time.perf_counter()
            trimmed = trim_tokenizer(tokenizer, counts, size)
            report(
                {
                    "tokenizer": path.name,
                    "old_vocab_size": tokenizer.vocab_size,
                    "size": size,
                    "vocab_size": len(trimmed.kept_ids),
                    "exact": trimmed.exact,
                    "count_seconds": round(count_seconds, 2),
                    "trim_seconds": round(time.perf_counter() - started, 2),
                    **compare_tokens(tokenizer, trimmed.tokenizer, texts),
                    "peak_memory_mib": peak_memory_mib(),
                }
            )


if __name__ == "__main__":
    main()
