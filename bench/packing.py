"""MB/s of UTF-8 text from one JSON lines file to token ids on disk, peers beside us, ids compared.

    python bench/packing.py --text TEXT.jsonl --tokenizer FOLDER --peer-python PEERS/bin/python --rounds 3

`fangcun` is the corpus stage and the tokens stage, from the JSON lines to synced and hashed folders; `fangcun-tokens`
the second one alone. `+tokenizers` is us without fastokens. FOLDER holds a tokenizer that all can read: GPT-2's
vocab.json and merges.txt, or a byte-level tokenizer.json. The peers are described in `packing_peers.py`; their Python
needs tiktoken, tokenizers, datasets, and litdata (with torch) for its way. Imports count, interpreter start does not.
MB per CPU second, of all processes together, says more than MB/s where others use the machine; it includes the check
of the ids.
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()

import argparse  # noqa: E402
import hashlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402

from common import peak_memory_mib, report, run_timed  # noqa: E402

WAYS = ("fangcun", "fangcun-tokens", "fangcun+tokenizers", "nanogpt", "tiktoken", "tokenizers", "datasets", "litdata")


def ours(args: argparse.Namespace) -> None:
    """One measurement of us, in a process of its own."""
    from fangcun.config.schema import CorpusConfig, TokensConfig
    from fangcun.corpus import build_corpus
    from fangcun.tokens import open_split, pack

    out = Path(args.out)
    corpus = Path(args.corpus)
    if args.way != "fangcun-tokens":
        # The last document is the validation split, so that both splits together are in the order of the file.
        config = CorpusConfig(paths=[args.text], text_key="text", val_split="tail", val_share=1e-9)
        corpus = out / "corpus"
        build_corpus(config, corpus)
    encoder = "tokenizers" if args.way.endswith("+tokenizers") else "auto"
    pack(corpus, Path(args.tokenizer), out / "tokens", TokensConfig(encoder=encoder))
    seconds, peak_mib = time.perf_counter() - STARTED, peak_memory_mib()
    digest, n_tokens = hashlib.sha256(), 0
    for split in ("train", "val"):
        tokens = open_split(out / "tokens", split)
        n_tokens += tokens.n_tokens
        for start in range(0, tokens.n_tokens, 1 << 22):
            ids = tokens.read(start, min(start + (1 << 22), tokens.n_tokens))
            digest.update(ids.astype("<u4").tobytes())
    record = {"seconds": seconds, "tokens": n_tokens, "sha256": digest.hexdigest(), "peak_mib": peak_mib}
    print(json.dumps(record))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True, help="JSON lines with the field text")
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--peer-python")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", help=argparse.SUPPRESS)  # one measurement, in a child
    parser.add_argument("--out", help=argparse.SUPPRESS)
    parser.add_argument("--corpus", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        ours(args)
        return
    scratch = Path(tempfile.mkdtemp(prefix="packing-"))
    try:
        _compare(args, scratch)
    finally:
        shutil.rmtree(scratch)


def _compare(args: argparse.Namespace, scratch: Path) -> None:
    from fangcun.config.schema import CorpusConfig, TokenizerConfig
    from fangcun.corpus import build_corpus, iter_split
    from fangcun.tokenizer import Tokenizer, build_tokenizer

    corpus, tokenizer = scratch / "corpus", scratch / "tokenizer"
    build_corpus(CorpusConfig(paths=[args.text], text_key="text", val_split="tail", val_share=1e-9), corpus)
    build_tokenizer(TokenizerConfig(path=args.tokenizer), None, tokenizer)
    # All read the text as our corpus stage left it (line ends, control characters), so that the ids can be equal.
    args.text, n_bytes = str(scratch / "text.jsonl"), 0
    with open(args.text, "w", encoding="utf-8", newline="\n") as file:
        for text in (document.text for split in ("train", "val") for document in iter_split(corpus, split)):
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
            n_bytes += len(text.encode())
    loaded = Tokenizer.load(tokenizer)
    dtype = "uint16" if loaded.vocab_size <= 1 << 16 else "uint32"
    found: dict[str, list[dict]] = {}
    for number in range(args.rounds):
        for way in args.ways:
            out = scratch / f"out-{number}"
            common = ["--way", way, "--text", args.text, "--out", str(out)]
            if way.startswith("fangcun"):
                command = [sys.executable, __file__, *common, "--tokenizer", str(tokenizer), "--corpus", str(corpus)]
            else:
                script = str(Path(__file__).with_name("packing_peers.py"))
                command = [args.peer_python, script, *common, "--tokenizer", str(tokenizer / "tokenizer.json"),
                           "--end", str(loaded.eos_id), "--dtype", dtype]  # fmt: skip
            before = os.times()
            record = json.loads(run_timed(command, env={"HF_HUB_OFFLINE": "1"})[1].splitlines()[-1])
            shutil.rmtree(out)
            after = os.times()
            cpu = after.children_user + after.children_system - before.children_user - before.children_system
            record = {
                "way": way,
                **record,
                "mb_per_second": round(n_bytes / 1e6 / record["seconds"], 2),
                "cpu_seconds": round(cpu, 2),
                "mb_per_cpu_second": round(n_bytes / 1e6 / cpu, 2),
            }
            report(record)
            found.setdefault(way, []).append(record)
    tokens = {record["tokens"] for records in found.values() for record in records}
    ids = {record["sha256"] for records in found.values() for record in records if record["sha256"]}
    print(f"{n_bytes / 1e6:,.1f} MB of text; tokens {sorted(tokens)}; different sequences of ids: {len(ids)}")
    for way, records in found.items():
        speeds = [record["mb_per_second"] for record in records]
        of_cpu = statistics.median(record["mb_per_cpu_second"] for record in records)
        print(
            f"{way}: median {statistics.median(speeds):.1f} MB/s of {len(speeds)} ({min(speeds)} to {max(speeds)}), "
            f"{of_cpu:.1f} MB per CPU second"
        )


if __name__ == "__main__":
    main()
