"""The next batch, fetched by a thread while the step runs.

A batch is a function of its sample numbers, so what a thread fetched ahead is what would have been fetched now; when
another batch is asked for than was expected (after a rollback), the one fetched ahead is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor]


class Prefetch:
    """Batches of `fetch(first_sample, count)`, one ahead.

    On CUDA they lie in pinned memory, which is copied while the GPU works (not yet tested on a GPU).
    """

    def __init__(self, fetch: Callable[[int, int], Batch], device: torch.device) -> None:
        self._fetch, self._pin = fetch, device.type == "cuda"
        self._ahead: tuple[tuple[int, int], Future[Batch]] | None = None
        index = None
        if self._pin:
            # A thread begins on the first GPU, and pinning there would take memory of it on every rank.
            index = torch.cuda.current_device() if device.index is None else device.index
        self._thread = ThreadPoolExecutor(1, "prefetch", initializer=_use_gpu, initargs=(index,))

    def get(self, first_sample: int, count: int, *, then: int | None = None) -> Batch:
        """Samples first_sample … first_sample + count - 1, and begin on the `count` from `then` on.

        Raises what fetching them raised. None: nothing is fetched ahead.
        """
        wanted, ahead, self._ahead = (first_sample, count), self._ahead, None
        if ahead is None or ahead[0] != wanted:
            ahead = wanted, self._thread.submit(self._make, *wanted)
        batch = ahead[1].result()
        if then is not None:
            self._ahead = (then, count), self._thread.submit(self._make, then, count)
        return batch

    def close(self) -> None:
        """End the thread, and forget what it fetched."""
        self._ahead = None
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _make(self, first_sample: int, count: int) -> Batch:
        inputs, targets = self._fetch(first_sample, count)
        return (inputs.pin_memory(), targets.pin_memory()) if self._pin else (inputs, targets)


def _use_gpu(index: int | None) -> None:
    if index is not None:
        torch.cuda.set_device(index)
