"""The matrix products of one training step, bare, at their real shapes: how long they alone take in this process."""

from __future__ import annotations

import statistics
import time

import torch


def products(s: dict[str, int]) -> list[tuple[int, int, int, int]]:
    """(times, tokens, inputs, outputs) of the linear layers of a shape; without the head where it has none."""
    width, layers, tokens = s["D"], s["L"], s["B"] * s["T"]
    mixed = s["H"] * s.get("HS", width // s["H"])
    linear = [(layers, tokens, width, 3 * mixed), (layers, tokens, mixed, width)]
    if "I" in s:
        linear += [(2 * layers, tokens, width, s["I"]), (layers, tokens, s["I"], width)]
    else:
        linear += [(layers, tokens, width, 4 * width), (layers, tokens, 4 * width, width)]
    return [*linear, (1, tokens, width, s["V"])]


def product_seconds(s: dict[str, int], dtype: torch.dtype, repeats: int = 3) -> float:
    """Seconds of the linear layers of one step: each product forward, and by input and by weight backward.

    Into memory that is there already, and with up to 512 tokens at once where the result would be larger than 64 MiB.
    The products inside of attention are left out: they have no shape of their own in a fused kernel. So a step that
    takes this long would do its attention for nothing.
    """
    total = 0.0
    for count, tokens, inputs, outputs in products(s):
        rows = tokens if tokens * outputs <= 16 << 20 else 512
        x, w = torch.randn(rows, inputs, dtype=dtype), torch.randn(outputs, inputs, dtype=dtype)
        y, by_x, by_w = torch.empty(rows, outputs, dtype=dtype), torch.empty_like(x), torch.empty_like(w)
        times = []
        for _ in range(repeats + 1):
            started = time.perf_counter()
            torch.mm(x, w.t(), out=y)
            torch.mm(y, w, out=by_x)
            torch.mm(y.t(), x, out=by_w)
            times.append(time.perf_counter() - started)
        total += count * (tokens / rows) * statistics.median(times[1:])
    return total
