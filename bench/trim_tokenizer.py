"""A borrowed tokenizer trimmed to a book, beside the whole one and one trained on the book: tokens on its last tenth.

python bench/trim_tokenizer.py --tokenizer PATH --text BOOK.txt [--sizes 4096 8192 16384] [--rounds 3]

naive keeps the most used tokens without those that their merges pass through. Seconds are of counting and choosing, with
the tokenizer already open.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import report

from fangcun.tokenizer import Tokenizer, import_tokenizer, train_bpe, trim_tokenizer
from fangcun.tokenizer.bpe_file import BpeFile
from fangcun.tokenizer.sample import blocks
from fangcun.tokenizer.trim import compare_pieces, count_usage


def naive(tokenizer: Tokenizer, text: str, size: int) -> Tokenizer:
    """The bytes, the added tokens and the most used others; merges whose parts are gone are dropped."""
    import json

    import tokenizers

    file, counts = BpeFile.of(tokenizer, "it"), count_usage(tokenizer, [text])
    order = [index for index in np.argsort(-counts, kind="stable").tolist() if index not in file.base]
    content = file.keep_only([*file.base, *order[: size - len(file.base)]])
    return Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(content)), tokenizer.config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[4096, 8192, 16384])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    text = Path(args.text).read_text(encoding="utf-8")
    cut = len(text) * 9 // 10
    seen, held_out = text[:cut], text[cut:]
    whole = import_tokenizer(args.tokenizer).tokenizer

    def line(way: str, tokenizer: Tokenizer, **more: Any) -> None:
        compared = compare_pieces(whole, tokenizer, [held_out])
        used = int(np.count_nonzero(count_usage(tokenizer, [seen])))
        report(
            {
                "way": way,
                "ids": tokenizer.vocab_size,
                "tokens": compared["tokens"],
                "characters_per_token": round(len(held_out) / compared["tokens"], 4),
                "same_pieces_share": compared["same_pieces_share"],
                "ids_used_on_the_nine_tenths": used,
                **more,
            }
        )

    line("whole", whole)
    for size in [*args.sizes, None]:
        seconds = []
        for _ in range(args.rounds):
            started = time.perf_counter()
            trimmed = trim_tokenizer(whole, [seen], size)
            seconds.append(time.perf_counter() - started)
        line("trimmed", trimmed.tokenizer, size=size, seconds=round(statistics.median(seconds), 2))
        if size is None:
            continue
        line("naive", naive(whole, seen, size), size=size)
        started = time.perf_counter()
        trained, _ = train_bpe(blocks(seen), vocab_size=size, max_han_run=4)
        line("trained", trained, size=size, seconds=round(time.perf_counter() - started, 2))


if __name__ == "__main__":
    main()
