"""Are the encodings of short Chinese text told apart, what does looking for mojibake cost, how fast are many files listed?

python bench/encodings.py --simplified FILE --traditional FILE [--pieces 300] [--files 100000] [--rounds 5]

The texts are UTF-8 files of prose. Peers are used where this Python has them: chardet, charset_normalizer, ftfy.
A piece counts as told when the encoding named reads its bytes back exactly.
"""

from __future__ import annotations

import argparse
import importlib
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import peak_memory_mib, report

from fangcun.corpus import normalize
from fangcun.corpus.encoding import StreamDecoder
from fangcun.corpus.files import list_files, short_names
from fangcun.corpus.mojibake import is_beyond_repair, propose

Read = Callable[[bytes], str | None]


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _ours(data: bytes) -> str:
    return "".join(StreamDecoder("bench", "auto", lambda line, count: None).decode([data]))


def _named(data: bytes, name: str | None) -> str | None:
    # The Windows variant of Big5 is the superset; a detector is not blamed for naming the standard.
    codec = {"big5": "cp950", "gb2312": "gb18030", "gbk": "gb18030"}.get((name or "").lower().replace("_", ""), name)
    try:
        return data.decode(codec) if codec else None
    except (LookupError, UnicodeDecodeError):
        return None


def readers() -> dict[str, Read]:
    """What turns bytes into text, by name."""
    found: dict[str, Read] = {"fangcun": _ours}
    if chardet := _module("chardet"):
        found["chardet"] = lambda data: _named(data, chardet.detect(data)["encoding"])
    if normalizer := _module("charset_normalizer"):
        found["charset_normalizer"] = lambda data: str(normalizer.from_bytes(data).best() or "")
    return found


def told_apart(simplified: str, traditional: str, pieces: int) -> None:
    """For each reader and length: the share of pieces read back, and microseconds a piece."""
    cases = [
        (simplified, "gb18030"),
        (traditional, "gb18030"),
        (traditional, "cp950"),
        (simplified, "utf-16-le"),
        (simplified, "utf-8"),
    ]
    for name, read in readers().items():
        for characters in (8, 16, 32, 128, 1000):
            draw, right, total, seconds = random.Random(0), dict.fromkeys(("gb18030", "cp950", "utf-16-le", "utf-8"), 0), 0, 0.0  # fmt: skip
            for text, codec in cases:
                for _ in range(pieces):
                    start = draw.randrange(len(text) - characters)
                    data = text[start : start + characters].encode(codec, "ignore")
                    started = time.perf_counter()
                    result = read(data)
                    seconds += time.perf_counter() - started
                    right[codec] += result == data.decode(codec).replace("\r\n", "\n").replace("\r", "\n")
                    total += 1
            shares = {
                codec: round(count / pieces / (2 if codec == "gb18030" else 1), 3) for codec, count in right.items()
            }
            report(
                {"reader": name, "characters": characters, "told": shares, "us_a_piece": round(seconds / total * 1e6)}
            )


def mojibake(text: str, rounds: int) -> None:
    """Nanoseconds a character of clean text, documents of 1,000 characters; `normalize` beside it for scale."""
    documents = [text[start : start + 1000] for start in range(0, len(text), 1000)]
    ways: dict[str, Callable[[str], object]] = {
        "propose": propose,
        "is_beyond_repair": is_beyond_repair,
        "normalize": normalize,
    }
    if ftfy := _module("ftfy"):
        ways["ftfy.fix_encoding"] = ftfy.fix_encoding
    for name, way in ways.items():
        times = []
        for _ in range(rounds):
            started = time.perf_counter()
            changed = sum(way(document) not in (None, False, document) for document in documents)
            times.append(time.perf_counter() - started)
        median = statistics.median(times)
        report({"way": name, "ns_a_character": round(median / len(text) * 1e9, 2), "changed": changed})


def many_files(files: int, rounds: int) -> None:
    """Seconds to list and name so many small files in 14 folders, medians; files of a tenth beside them."""
    with tempfile.TemporaryDirectory() as folder:
        made = 0
        for count in (files // 10, files):
            for number in range(made, count):
                path = Path(folder) / f"class{number % 14}" / f"{number}.txt"
                path.parent.mkdir(exist_ok=True)
                path.write_text("文", encoding="utf-8")
            made = count
            times = []
            for _ in range(rounds):
                started = time.perf_counter()
                short_names(list_files([folder])[0])
                times.append(time.perf_counter() - started)
            report({"files": count, "list_s": round(statistics.median(times), 3), "peak_mib": peak_memory_mib()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simplified", type=Path, required=True)
    parser.add_argument("--traditional", type=Path, required=True)
    parser.add_argument("--pieces", type=int, default=300)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    simplified, traditional = (path.read_text(encoding="utf-8") for path in (args.simplified, args.traditional))
    told_apart(simplified, traditional, args.pieces)
    mojibake(simplified, args.rounds)
    many_files(args.files, args.rounds)


if __name__ == "__main__":
    main()
