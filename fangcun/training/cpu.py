"""What makes training on a CPU faster without changing what it computes: batches that fit the cache, memory that is kept."""

from __future__ import annotations

import ctypes
import sys

import torch

from fangcun.config import ModelConfig

WIDEST_BYTES = 8 << 20
"""Largest activation tensor of a forward pass. Measured at 2 layers x 128, block 256: 4 to 8 MiB are best, 32 MiB take a fifth longer."""

FEWEST_TOKENS = 2048
"""Below this the matrix products get slower, and adding up gradients as large as the weights costs more than is won."""

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # from glibc's malloc.h


def samples_at_once(config: ModelConfig, micro_batch_size: int, block_size: int, device: torch.device) -> int:
    """Samples of one forward pass: on a CPU the largest part of `micro_batch_size` whose activations fit the cache.

    The loss is a sum over all targets of a step, so the split changes nothing but rounding, and the noise of dropout,
    which is seeded by part. It depends on the model and the micro-batch alone, hence a resumed run finds the same.
    """
    if device.type != "cpu":
        return micro_batch_size
    assert config.intermediate_size is not None, "resolve_model comes first"
    bytes_of_sample = 4 * block_size * max(config.intermediate_size, config.n_embd)
    wanted = max(WIDEST_BYTES // bytes_of_sample, -(-FEWEST_TOKENS // block_size), 1)
    return max(n for n in range(1, min(wanted, micro_batch_size) + 1) if micro_batch_size % n == 0)


def tune_allocator(*, keep: bool) -> bool:
    """Tell glibc what to do with memory that a step has freed; True when it could be told.

    By default a tensor above some size, which moves, is new memory from the system, zeroed page by page at first touch,
    in each step again. keep: for speed, hold it for the next step. Not keep: for a small footprint, give every tensor
    above 1 MiB back at once (44M shape with activation checkpointing: peak 1,064 MiB instead of 1,214).
    Other C libraries (macOS, Windows, musl) are left alone.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    if keep:  # 32 MiB is glibc's upper limit for what may come from the heap; larger tensors are few
        settings = {_M_MMAP_THRESHOLD: 32 << 20, _M_TRIM_THRESHOLD: 512 << 20, _M_TOP_PAD: 64 << 20}
    else:
        settings = {_M_MMAP_THRESHOLD: 1 << 20, _M_TRIM_THRESHOLD: 1 << 20}
    accepted = [mallopt(name, value) == 1 for name, value in settings.items()]
    return all(accepted)
