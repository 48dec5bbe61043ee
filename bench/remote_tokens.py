"""Milliseconds a batch of token windows from a folder, and from an object store with latency, peers beside us.

    python bench/remote_tokens.py --rounds 3
    python bench/remote_tokens.py --ways local --rounds 5      # with PYTHONPATH at two versions, to compare them

The store is simulated: each request waits --latency-ms, then its bytes come at --mb-per-second (a connection; several
connections add up). Each way reads the same pseudo-random windows: `batches` of them at first, with nothing cached, then
again the same ones. `warm` is the median of the second time; on `first` the whole split is read about once.

| way | what it is |
|---|---|
| local | the folder, mapped |
| fangcun | RemoteTokens: blocks of 4 MiB, 16 at a time (single windows: 32), bounded cache |
| fangcun-small-cache | the same with a cache of half the split |
| ranges | a range request a window, 32 at a time, no cache (how byte ranges of numpy files are streamed, as in OLMo-core) |
| blockcache | fsspec's `blockcache` with blocks of 4 MiB, and a thread for each window |
| download | the files copied first, then mapped |
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
from common import peak_memory_mib, report, run_timed
from fsspec.implementations.local import LocalFileSystem

WAYS = ("local", "fangcun", "fangcun-small-cache", "ranges", "blockcache", "download")
BLOCK_BYTES = 4 << 20


class SlowFileSystem(LocalFileSystem):
    """slow://: local files behind latency and a limited line."""

    protocol: ClassVar[str] = "slow"  # type: ignore[misc]
    latency_seconds, bytes_per_second = 0.03, 60e6
    requests: ClassVar[list[int]] = []

    @classmethod
    def _strip_protocol(cls, path: Any) -> str:
        return super()._strip_protocol(str(path).removeprefix("slow://"))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **more: Any) -> bytes:
        with open(self._strip_protocol(path), "rb") as file:
            file.seek(start or 0)
            content = file.read(-1 if end is None else end - (start or 0))
        self._wait(len(content))
        return content

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **more: Any) -> Any:
        return _SlowFile(self, path, mode, block_size or BLOCK_BYTES, cache_type="none")

    def _wait(self, n_bytes: int) -> None:
        self.requests.append(n_bytes)
        time.sleep(self.latency_seconds + n_bytes / self.bytes_per_second)


class _SlowFile(fsspec.spec.AbstractBufferedFile):
    def _fetch_range(self, start: int, end: int) -> bytes:
        return self.fs.cat_file(self.path, start, end)


def make_tokens(folder: Path, n_tokens: int) -> None:
    """A tokens folder of random ids of two bytes in shards of a quarter."""
    from fangcun.artifacts import Manifest, write_artifact
    from fangcun.tokens import ShardWriter

    draw = np.random.default_rng(0)
    settings = {"dtype": "uint16", "vocab_size": 65_536, "eos_id": 0, "tokenizer_fingerprint": "f"}
    manifest = Manifest("tokens", settings=settings)
    with write_artifact(folder, manifest) as out:
        for split, n in (("train", n_tokens), ("val", 0)):
            with ShardWriter(out, split, "uint16", n_tokens // 4) as writer:
                for size in [n // 16] * 16 if n else []:
                    writer.add(draw.integers(0, 65_536, size), np.array([size]), np.array([3 * size]))
            counts = {"tokens": writer.tokens, "documents": writer.documents, "bytes": writer.bytes}
            manifest.counts[split] = {**counts, "comparable": True, "not_comparable_because": None}


def measure(args: argparse.Namespace) -> None:
    """One way, in a process of its own."""
    from fangcun.tokens import open_split
    from fangcun.tokens.order import WindowOrder

    scratch = Path(args.scratch)
    tokens, cache = scratch / "tokens", scratch / f"cache-{time.time_ns()}"
    SlowFileSystem.latency_seconds, SlowFileSystem.bytes_per_second = args.latency_ms / 1000, args.mb_per_second * 1e6
    fsspec.register_implementation("slow", SlowFileSystem, clobber=True)
    local = open_split(tokens, "train")
    order = WindowOrder(local.n_tokens, args.block_size, 0)
    batches = [order.windows(i * args.batch, args.batch).starts.tolist() for i in range(args.batches)]
    rows = np.empty((args.batch, args.block_size + 1), np.int64)
    began = time.perf_counter()
    if args.way == "local":
        read = local.read_rows
    elif args.way.startswith("fangcun"):
        from fangcun.tokens import RemoteTokens

        size = sum(file.stat().st_size for file in tokens.glob("*.bin"))
        limit = size // 2 if args.way.endswith("small-cache") else 2 * size
        remote = RemoteTokens(f"slow://{tokens}", cache_folder=cache, cache_bytes=limit)
        read = open_split(remote, "train").read_rows
    elif args.way == "download":
        shutil.copytree(tokens, cache)
        with ThreadPoolExecutor(16) as pool:  # the time it would take
            files = fsspec.filesystem("slow")
            spans = [(f, a) for f in tokens.glob("*.bin") for a in range(0, f.stat().st_size, BLOCK_BYTES)]
            list(pool.map(lambda s: files.cat_file(str(s[0]), s[1], s[1] + BLOCK_BYTES), spans))
        read = open_split(cache, "train").read_rows
    else:
        read = peer(args.way, tokens, cache, local._starts)
    times = []
    for starts in batches * 2:
        asked = time.perf_counter()
        read(starts, rows)
        times.append(time.perf_counter() - asked)
    first = time.perf_counter() - began - sum(times[args.batches :])
    expected = np.empty_like(rows)
    local.read_rows(batches[-1], expected)
    assert (rows == expected).all()
    record = {
        "way": args.way,
        "first_seconds": round(first, 3),
        "warm_ms": round(statistics.median(times[args.batches :]) * 1000, 3),
        "requests": len(SlowFileSystem.requests),
        "fetched_mb": round(sum(SlowFileSystem.requests) / 1e6, 1),
        "peak_mib": peak_memory_mib(),
    }
    shutil.rmtree(cache, ignore_errors=True)
    print(json.dumps(record))


def peer(way: str, tokens: Path, cache: Path, shard_starts: np.ndarray):
    """read_rows of a peer: each window by itself, in threads."""
    pool, lock = ThreadPoolExecutor(32 if way == "ranges" else 16), threading.Lock()
    files = fsspec.filesystem("slow")
    names = sorted(str(f) for f in tokens.glob("train-*.bin"))
    if way == "blockcache":
        cached = fsspec.filesystem("blockcache", fs=files, cache_storage=str(cache))
        handles = [cached.open(name, block_size=BLOCK_BYTES) for name in names]

    def window(start: int, row: np.ndarray) -> None:
        filled = 0
        while filled < len(row):
            shard = int(np.searchsorted(shard_starts, start + filled, side="right")) - 1
            first = start + filled - int(shard_starts[shard])
            stop = min(first + len(row) - filled, int(shard_starts[shard + 1] - shard_starts[shard]))
            if way == "ranges":
                raw = files.cat_file(names[shard], 2 * first, 2 * stop)
            else:
                with lock:  # its files are not safe to use from several threads
                    handles[shard].seek(2 * first)
                    raw = handles[shard].read(2 * (stop - first))
            row[filled : filled + stop - first] = np.frombuffer(raw, "<u2")
            filled += stop - first

    def read(starts: list[int], rows: np.ndarray) -> None:
        list(pool.map(window, starts, rows))

    return read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64_000_000)
    parser.add_argument("--batches", type=int, default=100)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--block-size", type=int, default=1024)
    parser.add_argument("--latency-ms", type=float, default=30)
    parser.add_argument("--mb-per-second", type=float, default=60)
    parser.add_argument("--way", help=argparse.SUPPRESS)  # one measurement, in a child
    parser.add_argument("--scratch", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        measure(args)
        return
    scratch = Path(tempfile.mkdtemp(prefix="remote-tokens-"))
    try:
        make_tokens(scratch / "tokens", args.tokens)
        found: dict[str, list[dict]] = {}
        for _ in range(args.rounds):
            for way in args.ways:
                command = [sys.executable, __file__, "--way", way, "--scratch", str(scratch)]
                for name in ("batches", "batch", "block_size", "latency_ms", "mb_per_second"):
                    command += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
                record = json.loads(run_timed(command)[1].splitlines()[-1])
                report(record)
                found.setdefault(way, []).append(record)
        for way, records in found.items():
            middle = {k: statistics.median(r[k] for r in records) for k in records[0] if k != "way"}
            report({"way": way, "median_of": len(records), **middle})
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
