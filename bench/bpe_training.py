"""BPE training beside `tokenizers` and `rustbpe`: seconds, peak memory, and characters a token on held-out text.

    python bench/bpe_training.py make big.txt --megabytes 1000 SOURCE.txt ...   # a large text out of small ones
    python bench/bpe_training.py growth big.txt SOURCE.txt                      # distinct pieces by size of the text
    python bench/bpe_training.py train big.txt --held-out held.txt --vocab-size 8192 --vocab-size 32768

`make` joins fragments of random places and lengths, most of which begin and end inside a sentence: at each seam there
are pieces that the sources do not have, so that their number goes on growing. `growth` shows how that compares with the
sources. Every training runs in a process of its own; `train` prints one JSON line each.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from common import peak_memory_mib, report, run_timed

BLOCK_CHARACTERS = 16_384
TRAINERS = ("fangcun", "tokenizers", "rustbpe")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    make = verbs.add_parser("make")
    make.add_argument("out", type=Path)
    make.add_argument("sources", type=Path, nargs="+")
    make.add_argument("--megabytes", type=int, default=1000)
    make.add_argument("--fragment", type=int, default=8, help="mean characters of a fragment")
    growth = verbs.add_parser("growth")
    growth.add_argument("texts", type=Path, nargs="+")
    train = verbs.add_parser("train")
    train.add_argument("text", type=Path)
    train.add_argument("--held-out", type=Path, required=True)
    train.add_argument("--vocab-size", type=int, action="append", required=True)
    train.add_argument("--trainer", choices=TRAINERS, action="append")
    train.add_argument("--gb2312", choices=("auto", "true", "false"), default="false")
    one = verbs.add_parser("one")
    one.add_argument("settings")
    options = parser.parse_args()
    if options.verb == "make":
        splice(options.out, options.sources, options.megabytes * 1_000_000, options.fragment)
    elif options.verb == "growth":
        for text in options.texts:
            print_growth(text)
    elif options.verb == "one":
        report(train_one(**json.loads(options.settings)))
    else:
        for vocab_size in options.vocab_size:
            for trainer in options.trainer or TRAINERS:
                settings = {"trainer": trainer, "vocab_size": vocab_size, "text": str(options.text),
                            "held_out": str(options.held_out), "gb2312": options.gb2312}  # fmt: skip
                _, out, _ = run_timed([sys.executable, __file__, "one", json.dumps(settings)])
                print(out, end="", flush=True)


def splice(out: Path, sources: list[Path], size_bytes: int, mean_characters: int) -> None:
    """Write `size_bytes` of fragments of the sources, of geometrically distributed lengths, always the same ones."""
    text = "\n".join(source.read_text(encoding="utf-8") for source in sources)
    draw = np.random.default_rng(0)
    written = 0
    with out.open("wb") as file:
        while written < size_bytes:
            starts = draw.integers(0, len(text), 20_000).tolist()
            lengths = draw.geometric(1 / mean_characters, 20_000).tolist()
            pieces = (text[start : start + length] for start, length in zip(starts, lengths, strict=True))
            written += file.write("".join(pieces).encode()[: size_bytes - written])
    # The last character may be cut in two: readers here replace it.


def blocks(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        while block := file.read(BLOCK_CHARACTERS):
            yield block


def print_growth(path: Path) -> None:
    """Distinct pieces of the training cut after 1, 3, 10 ... MB of a text."""
    from fangcun.tokenizer.piece_counts import PieceCounter

    counter = PieceCounter(4, han_limit=1 << 40, other_limit=1 << 40)
    text = blocks(path)
    for size in (m * 10**e for e in range(6, 12) for m in (1, 3)):
        before = counter.text_bytes
        counter.count(_up_to(text, size - before))
        if counter.text_bytes == before:
            return
        keys, counts = counter.han.total()
        report({"text": path.name, "megabytes": round(counter.text_bytes / 1e6, 1), "distinct_han_pieces": len(keys),
                "of_these_once": int((counts == 1).sum()), "distinct_other_pieces": len(counter.other)})  # fmt: skip


def _up_to(text: Iterator[str], size_bytes: int) -> Iterator[str]:
    """Blocks of an iterator that goes on, until they have `size_bytes`."""
    read = 0
    while read < size_bytes and (block := next(text, "")):
        read += len(block.encode())
        yield block


def train_one(trainer: str, vocab_size: int, text: str, held_out: str, gb2312: str) -> dict[str, object]:
    """Train in this process and measure; the time and memory of loading the library are not the trainer's."""
    from fangcun.tokenizer import Tokenizer, train_bpe

    before_mib = peak_memory_mib()
    started = time.perf_counter()
    notes: list[str] = []
    encode = None
    if trainer == "rustbpe":
        import rustbpe

        tokenizer = rustbpe.Tokenizer()
        tokenizer.train_from_iterator(blocks(Path(text)), vocab_size - 4, pattern=RUSTBPE_PATTERN)
        seconds, peak = time.perf_counter() - started, peak_memory_mib()
        encode = tokenizer.encode
        notes = ["Its encoder cuts hanzi as in training: its characters a token are not those of Qwen2's pattern."]
    else:
        ours: Tokenizer
        ours, notes = train_bpe(
            blocks(Path(text)), vocab_size=vocab_size, max_han_run=4, trainer=trainer,
            gb2312=gb2312 if gb2312 == "auto" else gb2312 == "true",
        )  # fmt: skip
        seconds, peak = time.perf_counter() - started, peak_memory_mib()

        def encode(block: str) -> list[int]:
            return ours.encode_documents([block])[0]

    characters = tokens = 0
    for block in blocks(Path(held_out)):
        characters += len(block)
        tokens += len(encode(block))
    return {"trainer": trainer, "vocab_size": vocab_size, "megabytes": round(Path(text).stat().st_size / 1e6, 1),
            "seconds": round(seconds, 1), "peak_mib": peak, "before_mib": before_mib,
            "held_out_characters_per_token": round(characters / tokens, 4), "notes": notes}  # fmt: skip


# The same cut in one pattern, as far as one without nested classes goes: other scripts stay together.
RUSTBPE_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|\p{Han}{1,4}|[^\r\n\p{L}\p{N}]?[\p{L}--\p{Han}]+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

if __name__ == "__main__":
    main()
