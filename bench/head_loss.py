"""Output head and cross entropy, forward and backward, several ways in turn: milliseconds and the memory they add.

    python bench/head_loss.py [--tokens 2048 --width 512 --vocabulary 65024] [--ways plain,chunked,128,256,512,torch] [--rounds 5]

`chunked` is Fangcun's with its own chunk size, a number its with that many positions at once, `torch` is
torch.nn.functional.linear_cross_entropy. `--memory` runs one way only, once, in this process, and reports how far the
resident memory rose above the inputs and their gradients (so one process a way).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from common import peak_memory_mib, report

from fangcun.model.loss import head_loss_sum, plain_head_loss_sum

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def way_named(name: str) -> Loss:
    """The loss that `name` stands for."""
    if name == "plain":
        return plain_head_loss_sum
    if name == "chunked":
        return head_loss_sum
    if name == "torch":
        return lambda h, w, y: torch.nn.functional.linear_cross_entropy(h, w, y, reduction="sum")
    return lambda h, w, y: head_loss_sum(h, w, y, rows_at_once=int(name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--vocabulary", type=int, default=65024)
    parser.add_argument("--dtype", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--ways", default="plain,chunked,128,256,512,torch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    dtype = torch.bfloat16 if args.dtype == "bf16" else torch.float32
    hidden = torch.randn(args.tokens, args.width, dtype=dtype).requires_grad_()
    weight = (torch.randn(args.vocabulary, args.width) / args.width**0.5).to(dtype).requires_grad_()
    targets = torch.randint(0, args.vocabulary, (args.tokens,))
    names = args.ways.split(",")

    def step(loss: Loss) -> float:
        hidden.grad = weight.grad = None
        started = time.perf_counter()
        (loss(hidden, weight, targets) / args.tokens).backward()
        return time.perf_counter() - started

    shape = {"tokens": args.tokens, "width": args.width, "vocabulary": args.vocabulary, "dtype": args.dtype}
    if args.memory:
        assert len(names) == 1, "--memory wants one way"
        hidden.grad, weight.grad = torch.ones_like(hidden), torch.ones_like(weight)
        before = peak_memory_mib()
        step(way_named(names[0]))
        report({"way": names[0], **shape, "added_mib": peak_memory_mib() - before})
        return
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(args.rounds + 1):  # the first round warms up and is dropped
        for name in names:
            times[name].append(step(way_named(name)))
    for name, found in times.items():
        report({"way": name, **shape, "median_ms": round(statistics.median(found[1:]) * 1e3, 2), "min_ms": round(min(found[1:]) * 1e3, 2)})  # fmt: skip


if __name__ == "__main__":
    main()
