"""The ways others go from JSON lines to token ids on disk; run by `packing.py`, with the peers' Python.

    nanogpt     its data/openwebtext/prepare.py: datasets.map with tiktoken document by document, then a numpy memmap
    tiktoken    the same without `datasets`: a pool of processes, tiktoken, arrays appended to a file
    tokenizers  encode_batch of the library with its own threads, then numpy
    datasets    datasets.map in batches with `tokenizers`, then numpy
    litdata     litdata.optimize as litgpt calls it: tokenizer.encode, one array a document

Prints seconds (imports included), tokens, and the sha256 of the ids as uint32, which is taken after the clock stopped.
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()

import argparse  # noqa: E402
import functools  # noqa: E402
import hashlib  # noqa: E402
import itertools  # noqa: E402
import json  # noqa: E402
import multiprocessing  # noqa: E402
import os  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402

GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
WORKERS = len(os.sched_getaffinity(0))


def texts_of(path: str, part: int = 0, parts: int = 1) -> Iterator[str]:
    """Documents of a JSON lines file, or those of one part of its lines."""
    with open(path, encoding="utf-8") as file:
        for line in itertools.islice(file, part, None, parts):
            yield json.loads(line)["text"]


def batched(items: Iterator[str], size: int) -> Iterator[list[str]]:
    while batch := list(itertools.islice(items, size)):
        yield batch


@functools.lru_cache(maxsize=1)
def library(tokenizer: str):
    import tokenizers

    return tokenizers.Tokenizer.from_file(tokenizer)


@functools.lru_cache(maxsize=1)
def tiktoken_of(tokenizer: str):
    """tiktoken with the vocabulary of a byte-level tokenizer.json whose ids are merge ranks."""
    import tiktoken

    content = json.loads(Path(tokenizer).read_text(encoding="utf-8"))
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(byte): byte for byte in visible}
    table |= {chr(256 + i): byte for i, byte in enumerate(b for b in range(256) if b not in visible)}
    added = {token["content"] for token in content["added_tokens"]}
    ranks = {bytes(table[c] for c in token): i for token, i in content["model"]["vocab"].items() if token not in added}
    steps = content["pre_tokenizer"].get("pretokenizers", [content["pre_tokenizer"]])
    pattern = next((step["pattern"]["Regex"] for step in steps if step["type"] == "Split"), GPT2_PATTERN)
    return tiktoken.Encoding("peer", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


def tiktoken_batch(tokenizer: str, end: int, dtype: str, texts: list[str]) -> bytes:
    encode = tiktoken_of(tokenizer).encode_ordinary
    return b"".join(np.array([*encode(text), end], dtype=dtype).tobytes() for text in texts)


def way_tiktoken(args: argparse.Namespace) -> None:
    encode = functools.partial(tiktoken_batch, args.tokenizer, args.end, args.dtype)
    with multiprocessing.Pool(WORKERS) as pool, open(args.out / "train.bin", "wb") as file:
        for ids in pool.imap(encode, batched(texts_of(args.text), 500)):
            file.write(ids)


def way_tokenizers(args: argparse.Namespace) -> None:
    encode = library(args.tokenizer).encode_batch
    with open(args.out / "train.bin", "wb") as file:
        for batch in batched(texts_of(args.text), 1000):
            for encoding in encode(batch, add_special_tokens=False):
                file.write(np.array([*encoding.ids, args.end], dtype=args.dtype).tobytes())


def _process_tiktoken(example: dict, tokenizer: str, end: int) -> dict:
    ids = tiktoken_of(tokenizer).encode_ordinary(example["text"])
    ids.append(end)
    return {"ids": ids, "len": len(ids)}


def _process_tokenizers(examples: dict, tokenizer: str, end: int) -> dict:
    ids = [[*e.ids, end] for e in library(tokenizer).encode_batch(examples["text"], add_special_tokens=False)]
    return {"ids": ids, "len": list(map(len, ids))}


def _map_and_write(args: argparse.Namespace, process, **more) -> None:
    import datasets

    # Without a cache of another round: everything is done anew.
    loaded = datasets.load_dataset("json", data_files=args.text, split="train", cache_dir=str(args.out / "cache"))
    tokenized = loaded.map(
        process, fn_kwargs={"tokenizer": args.tokenizer, "end": args.end}, remove_columns=loaded.column_names,
        num_proc=WORKERS, **more,
    )  # fmt: skip
    total = int(np.sum(tokenized["len"], dtype=np.uint64))
    array = np.memmap(args.out / "train.bin", dtype=args.dtype, mode="w+", shape=(total,))
    at, batches = 0, 1024
    for index in range(batches):
        batch = tokenized.shard(num_shards=batches, index=index, contiguous=True).with_format("numpy")
        ids = np.concatenate(batch["ids"]) if len(batch) else np.empty(0, args.dtype)
        array[at : at + len(ids)] = ids
        at += len(ids)
    array.flush()


def way_nanogpt(args: argparse.Namespace) -> None:
    _map_and_write(args, _process_tiktoken)


def way_datasets(args: argparse.Namespace) -> None:
    _map_and_write(args, _process_tokenizers, batched=True)


def _litdata_part(part: int, text: str, tokenizer: str, end: int):
    import torch

    encode = library(tokenizer).encode
    for document in texts_of(text, part, 64):
        yield torch.tensor([*encode(document, add_special_tokens=False).ids, end], dtype=torch.int32)


def way_litdata(args: argparse.Namespace) -> None:
    import litdata

    litdata.optimize(
        fn=functools.partial(_litdata_part, text=args.text, tokenizer=args.tokenizer, end=args.end),
        inputs=list(range(64)), output_dir=str(args.out / "lit"), num_workers=WORKERS, chunk_bytes="200MB",
        item_loader=litdata.TokensLoader(),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--way", choices=["nanogpt", "tiktoken", "tokenizers", "datasets", "litdata"], required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--tokenizer", required=True, help="a tokenizer.json without texts treated as special tokens")
    parser.add_argument("--end", type=int, required=True)
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True)
    globals()[f"way_{args.way}"](args)
    seconds = time.perf_counter() - STARTED
    if args.way == "litdata":
        chunks = json.loads((args.out / "lit" / "index.json").read_text())["chunks"]
        # Documents of 64 parts one after the other: the same ids in another order, so only counted.
        record = {"tokens": sum(chunk["dim"] for chunk in chunks), "sha256": None}
    else:
        ids = np.fromfile(args.out / "train.bin", args.dtype)
        record = {"tokens": len(ids), "sha256": hashlib.sha256(ids.astype("<u4").tobytes()).hexdigest()}
    print(json.dumps({"seconds": seconds, **record}))


if __name__ == "__main__":
    main()
