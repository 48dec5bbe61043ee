"""The processes of one run: who is which, and the few words they exchange.

`torchrun` starts them and sets RANK, WORLD_SIZE and the address of the first; a program started without it is alone and
has no process group. Every rank does the same steps on its own share of each global batch, so most of what they tell one
another are sums.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from fangcun.errors import FangcunError
from fangcun.training.heartbeat import Heartbeat
from fangcun.training.rendezvous import connect, meet

T = TypeVar("T")

_TIMEOUT = datetime.timedelta(minutes=30)
"""How long a collective may wait. Generous: a rank that is gone is noticed by the heartbeat, not by this."""
_PATIENCE = datetime.timedelta(days=7)


@dataclass(frozen=True)
class Ranks:
    """This process among those of its run."""

    rank: int = 0
    local_rank: int = 0
    """Its number on this machine, which is also the number of its GPU."""
    world_size: int = 1
    patient: Any = None
    """A group whose collectives wait for as long as it takes: the first rank may have a corpus to read."""

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes and speaks."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This rank's part of `items`: every world_size-th."""
        return items[self.rank :: self.world_size]

    def sum(self, tensor: Tensor) -> Tensor:
        """`tensor` summed over ranks, in place, the same bits on all of them."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def sums(self, *numbers: float) -> list[float]:
        """Each number summed over ranks, in float64."""
        if self.world_size == 1:
            return list(numbers)
        return self.sum(torch.tensor(numbers, dtype=torch.float64, device="cpu")).tolist()

    def most(self, number: int) -> int:
        """The largest of the ranks' numbers."""
        if self.world_size == 1:
            return number
        tensor = torch.tensor(number, device="cpu")
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return int(tensor)

    def gather(self, item: T) -> list[T]:
        """What each rank has, in their order, on the first rank; an empty list on the others."""
        if self.world_size == 1:
            return [item]
        items: list[Any] | None = [None] * self.world_size if self.is_first else None
        dist.gather_object(item, items)
        return items or []

    def from_first(self, item: T | None, *, patient: bool = False) -> T:
        """What the first rank has, on all ranks. patient: for as long as it takes, see `patient`."""
        if self.world_size == 1:
            return item  # type: ignore[return-value]
        box = [item]
        dist.broadcast_object_list(box, group=self.patient if patient else None)
        return box[0]  # type: ignore[return-value]

    def wait(self) -> None:
        """Until every rank is here."""
        if self.world_size > 1:
            # A sum on the CPU and not dist.barrier, which takes a GPU that may not be chosen yet.
            dist.all_reduce(torch.zeros(1, device="cpu"), group=self.patient)


def ranks_from_environment() -> Ranks:
    """What torchrun says of this process; alone where it says nothing. Raises FangcunError for half a description."""
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
    values = {name: os.environ.get(name, "") for name in names}
    if not values["WORLD_SIZE"] or values["WORLD_SIZE"] == "1":
        return Ranks()
    wrong = [name for name, value in values.items() if not value.isdecimal()]
    if wrong:
        raise FangcunError(
            f"WORLD_SIZE is {values['WORLD_SIZE']}, but {' and '.join(wrong)} is not set to a number. Start several "
            "processes with torchrun --nproc_per_node N -m fangcun …, or unset WORLD_SIZE."
        )
    return Ranks(int(values["RANK"]), int(values["LOCAL_RANK"]), int(values["WORLD_SIZE"]))


@contextlib.contextmanager
def joined(device_type: str) -> Iterator[Ranks]:
    """The process group of this run, as long as the block lasts: gloo for CPU tensors, NCCL for those on a GPU.

    device_type: "cpu" or "cuda". Raises FangcunError when there is no GPU for this rank, or the others cannot be reached.
    """
    ranks = ranks_from_environment()
    if ranks.world_size == 1:
        yield ranks
        return
    if device_type == "cuda":
        if ranks.local_rank >= torch.cuda.device_count():
            raise FangcunError(
                f"rank {ranks.rank} on {socket.gethostname()} needs GPU {ranks.local_rank}, torch sees "
                f"{torch.cuda.device_count()}. Start fewer processes: torchrun --nproc_per_node."
            )
        torch.cuda.set_device(ranks.local_rank)
    backend = "cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo"
    try:
        store = connect(ranks.rank)
        attempt = meet(store, ranks.rank, ranks.world_size)
        dist.init_process_group(
            backend,
            store=dist.PrefixStore(attempt, store),
            rank=ranks.rank,
            world_size=ranks.world_size,
            timeout=_TIMEOUT,
        )
    except (RuntimeError, ValueError, KeyError, TimeoutError) as error:
        raise FangcunError(
            f"rank {ranks.rank} of {ranks.world_size} on {socket.gethostname()} cannot reach the others "
            f"({next(iter(str(error).splitlines()), type(error).__name__)}). Start all of them with torchrun; between machines, name the network with "
            "GLOO_SOCKET_IFNAME (and NCCL_SOCKET_IFNAME)."
        ) from error
    heartbeat = Heartbeat(ranks.rank, ranks.local_rank, ranks.world_size)
    heartbeat.start(dist.PrefixStore(f"{attempt}/heartbeat", connect()))
    try:
        yield dataclasses.replace(ranks, patient=dist.new_group(backend="gloo", timeout=_PATIENCE))
        heartbeat.stop()
        dist.destroy_process_group()
    finally:
        # After an error the others may be gone: a farewell would wait for them.
        heartbeat.stop()


def lost_rank(error: BaseException) -> bool:
    """Whether `error` is how a collective fails when another rank has gone."""
    if isinstance(error, dist.DistError):
        return True
    words = ("Connection closed by peer", "Connection reset by peer", "Connection refused", "Broken pipe", "gloo/transport", "NCCL")  # fmt: skip
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
