"""A borrowed tokenizer trimmed to a book, beside the whole one and one trained on the book: tokens on its last tenth.

python bench/trim_tokenizer.py --tokenizer PATH --text BOOK.txt [--sizes 4096 8192 16384] [--rounds 3]

naive keeps the most used tokens without those that their merges pass through. Seconds are of counting and choosing, with
the tokenizer already open.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from common import report

from fangcun.tokenizer import Tokenizer, compare_tokens, count_tokens, import_tokenizer, train_bpe, trim_tokenizer
from fangcun.tokenizer.merge_tree import find_alphabet
from fangcun.tokenizer.sample import blocks


def naive(tokenizer: Tokenizer, counts: np.ndarray, size: int) -> Tokenizer:
    """The bytes, the added tokens and the most used others; merges whose parts are gone are dropped."""
    state = json.loads(tokenizer.backend.to_str())
    staying = find_alphabet(state, "it") | {token["content"] for token in state["added_tokens"]}
    ids = tokenizer.backend.get_vocab(with_added_tokens=True)
    others = sorted(ids.keys() - staying, key=lambda token: (-counts[ids[token]], ids[token]))
    kept = sorted([*(staying & ids.keys()), *others[: size - len(staying)]], key=ids.__getitem__)
    new = {token: index for index, token in enumerate(kept)}
    model = state["model"]
    model["vocab"] = {token: index for token, index in new.items() if token in model["vocab"]}
    model["merges"] = [
        pair for pair in model["merges"] if all(token in model["vocab"] for token in (*pair, "".join(pair)))
    ]
    for token in state["added_tokens"]:
        token["id"] = new[token["content"]]
    return Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(state)), tokenizer.config)


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
        compared = compare_tokens(whole, tokenizer, [held_out])
        used = int(np.count_nonzero(count_tokens(tokenizer, [seen])))
        report(
            {
                "way": way,
                "ids": tokenizer.vocab_size,
                "tokens": compared["tokens_after"],
                "characters_per_token": round(len(held_out) / compared["tokens_after"], 4),
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
            counts = count_tokens(whole, [seen])
            trimmed = trim_tokenizer(whole, counts, size)
            seconds.append(time.perf_counter() - started)
        line("trimmed", trimmed.tokenizer, size=size, seconds=round(statistics.median(seconds), 2))
        if size is None:
            continue
        line("naive", naive(whole, counts, size), size=size)
        started = time.perf_counter()
        trained, _ = train_bpe(blocks(seen), vocab_size=size, max_han_run=4)
        line("trained", trained, size=size, seconds=round(time.perf_counter() - started, 2))


if __name__ == "__main__":
    main()
