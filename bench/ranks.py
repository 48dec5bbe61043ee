"""One process with all cores against as many gloo processes with one thread each: tokens/s of the same training steps.

    python bench/ranks.py [--shape a|b|c] [--rounds 3] [--steps 8]

Each measurement is a fresh job, the two kinds in turn. The global batch is the same; AdamW, fp32, clip at 1.0.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from typing import Any

from common import median_of, report, run_timed


def measure(shape: str, steps: int) -> None:
    import torch
    from train_step import SHAPES

    from fangcun.config import ModelConfig, OptimizerConfig, resolve_model
    from fangcun.model import Transformer, initialize
    from fangcun.training import Compute, build_optimizers, joined, spread, train_step
    from fangcun.training.cpu import samples_at_once, tune_allocator

    s = SHAPES[shape]
    threads = int(os.environ["OMP_NUM_THREADS"])
    torch.set_num_threads(threads)
    tune_allocator(keep=True)
    cpu = torch.device("cpu")
    compute = Compute(cpu, "32-true", False, threads)
    more: dict[str, Any] = {"head_size": s["HS"], "intermediate_size": s["I"]} if "HS" in s else {}
    config = resolve_model(
        ModelConfig(n_layer=s["L"], n_head=s["H"], n_embd=s["D"], block_size=s["T"], padding_multiple=1, **more),
        vocab_size=s["V"],
    )
    with joined("cpu") as ranks:
        model = Transformer(config)
        initialize(model, 0)
        parallel = spread(model, compute, ranks, "ddp")
        optimizers = build_optimizers(model, OptimizerConfig(lr=4e-4))
        share = s["B"] // ranks.world_size
        ids = torch.randint(0, s["V"], (steps + 2, share, s["T"] + 1))
        times = []
        for batch in ids:
            started = time.perf_counter()
            train_step(
                parallel, list(model.parameters()), optimizers, batch[:, :-1].contiguous(), batch[:, 1:].contiguous(),
                rate=4e-4, micro_batch_size=samples_at_once(config, share, s["T"], cpu), max_norm=1.0, compute=compute,
                n_targets=s["B"] * s["T"],
            )  # fmt: skip
            times.append(time.perf_counter() - started)
        if ranks.is_first:
            median = statistics.median(times[2:])
            report(
                {"processes": ranks.world_size, "threads": threads, "shape": shape, "step_ms": round(median * 1e3, 1),
                 "tokens_per_second": round(s["B"] * s["T"] / median)}
            )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="c", choices="abc")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(args.shape, args.steps)
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    own = [__file__, "--measure", "--shape", args.shape, "--steps", str(args.steps)]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(cores)]
    found: dict[int, list[dict]] = {1: [], cores: []}
    for _ in range(args.rounds):
        for processes, command, threads in ((1, [sys.executable, *own], cores), (cores, [*launcher, *own], 1)):
            out = run_timed(command, env={"OMP_NUM_THREADS": str(threads)})[1]
            found[processes].append(json.loads(out.splitlines()[-1]))
            report(found[processes][-1])
    speeds = {processes: median_of(records, "tokens_per_second") for processes, records in found.items()}
    print(
        f"one process x {cores} threads: {speeds[1]:,.0f} tokens/s; {cores} processes: {speeds[cores]:,.0f} tokens/s; "
        f"ratio {speeds[cores] / speeds[1]:.2f} (medians of {args.rounds})"
    )


if __name__ == "__main__":
    main()
