"""`bf16-true`: the model computes with weights in bf16, the optimizer moves float32 ones, and both are kept in step.

Weights in bf16 alone lose every update smaller than a 256th of themselves; with float32 masters nothing is lost. Compared
with autocast (`bf16-mixed`) nothing is cast on the way and the residual stream is bf16 too, which saves memory and time at
the price of its rounding.
"""

from __future__ import annotations

import copy

import torch

from fangcun.model import Transformer


class LowCopy:
    """A bf16 copy of a model, which is what runs; the model itself keeps the masters and receives the gradients."""

    def __init__(self, master: Transformer) -> None:
        self.model = copy.deepcopy(master).to(torch.bfloat16)
        self._pairs = list(zip(master.parameters(), self.model.parameters(), strict=True))

    @torch.no_grad()
    def collect(self) -> None:
        """Add the copy's gradients to the masters', in float32: after each micro-batch, so that sums do not round."""
        for master, low in self._pairs:
            if low.grad is None:
                continue
            if master.grad is None:
                master.grad = low.grad.float()
            else:
                master.grad += low.grad
            low.grad = None

    @torch.no_grad()
    def refresh(self) -> None:
        """Round the masters into the copy: after the weights have moved."""
        for master, low in self._pairs:
            low.copy_(master)
