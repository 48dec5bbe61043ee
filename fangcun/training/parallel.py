"""The objective over several ranks: alone, replicated (DDP), or sharded (FSDP2). The model knows nothing of it.

Both engines are torch's. They average gradients over ranks where the loss wants a sum over the targets of all of them, so
each rank's part is multiplied by their number (`gradient_scale`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fangcun.model import Transformer
from fangcun.training.distributed import Ranks
from fangcun.training.low_copy import LowCopy
from fangcun.training.objective import Objective
from fangcun.training.precision import Compute
from fangcun.training.tensors import is_sharded

Strategy = Literal["ddp", "fsdp"]


@dataclass(frozen=True)
class Parallel:
    """An objective to call, and how its gradients meet."""

    objective: Callable[[Tensor, Tensor], Tensor]
    """(ids, targets) -> summed cross entropy of this rank's samples."""
    ranks: Ranks = Ranks()  # noqa: RUF009  (frozen)
    sharded: bool = False
    low: LowCopy | None = None
    """The bf16 copy that computes in place of the model, under bf16-true."""

    @property
    def gradient_scale(self) -> int:
        """Turns the mean over ranks, which the engines compute, into a sum."""
        return self.ranks.world_size

    @contextlib.contextmanager
    def micro_batch(self, *, last: bool):
        """Around forward and backward of one micro-batch: gradients travel with the last one of a step alone."""
        if self.ranks.world_size == 1 or self.low is not None:  # the copy's gradients do not stay from one to the next
            yield
        elif self.sharded:
            self.objective.set_requires_gradient_sync(last)  # type: ignore[attr-defined]
            yield
        elif last:
            yield
        else:
            with self.objective.no_sync():  # type: ignore[attr-defined]
                yield

    def collect(self) -> None:
        """After the backward pass of a micro-batch: gradients to where the optimizer looks for them."""
        if self.low is not None:
            self.low.collect()

    def refresh(self) -> None:
        """After the weights have changed: what computes learns of it."""
        if self.low is not None:
            self.low.refresh()


def spread(
    model: Transformer, compute: Compute, ranks: Ranks, strategy: Strategy, *, document_end: int | None = None
) -> Parallel:
    """The objective of `model` as this rank runs it. Sharding replaces the model's parameters: optimizers come after.

    `model` lies on the device already, with the same weights on every rank. document_end: the id that ends a document
    where these are not to see each other (train.document_mask).
    """
    low = LowCopy(model) if compute.precision == "bf16-true" else None
    objective = Objective(model if low is None else low.model, document_end=document_end)
    if ranks.world_size > 1 and strategy == "fsdp":
        return Parallel(_shard(objective, compute, ranks), ranks, sharded=True)
    if compute.compile:
        objective.compile()
    if ranks.world_size == 1:
        return Parallel(objective, ranks, low=low)
    devices = [compute.device] if compute.device.type == "cuda" else None
    replicated = DistributedDataParallel(
        objective, device_ids=devices, broadcast_buffers=False, gradient_as_bucket_view=True
    )
    return Parallel(replicated, ranks, low=low)


def _shard(objective: Objective, compute: Compute, ranks: Ranks) -> nn.Module:
    """FSDP2 (Zhao et al. 2023; torch's fully_shard): each block's parameters are gathered when it runs, and let go."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(compute.device.type, (ranks.world_size,))
    # Weights travel and multiply in bf16; gradients are summed in float32, and the optimizer sees float32 shards.
    low = torch.bfloat16 if compute.precision in ("bf16-mixed", "fp8-mixed") else None
    policy = MixedPrecisionPolicy(
        param_dtype=low, reduce_dtype=torch.float32 if low else None, cast_forward_inputs=False
    )
    for block in objective.model.blocks:
        if compute.compile:
            block.compile()
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(objective, mesh=mesh, mp_policy=policy)
    return objective


def whole_state(model: Transformer, *, everywhere: bool = False) -> dict[str, Tensor]:
    """The model's parameters, whole, by name, on the CPU where they were sharded; empty on ranks that do not need them.

    All ranks call it together. everywhere: every rank gets them, not the first alone.
    """
    result: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if is_sharded(tensor):
            whole = tensor.full_tensor()
            if everywhere or torch.distributed.get_rank() == 0:
                result[name] = whole.cpu()
        else:
            result[name] = tensor.detach()
    return result
