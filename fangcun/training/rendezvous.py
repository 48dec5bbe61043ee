"""Where the ranks of one attempt meet: a part of torchrun's store that no earlier attempt has written to.

When torchrun restarts a job (--max-restarts) its store lives on, with the addresses of processes that are dead; nothing
that a process is told counts the attempts alike on all machines. So the first rank offers a name that is new, the others
accept it, and all go on when each finds its own acceptance confirmed; what dead processes left confirms nobody.
"""

from __future__ import annotations

import datetime
import json
import os
import secrets
import time

import torch.distributed as dist

_POLL_SECONDS = 0.02
_TIMEOUT_SECONDS = 300.0


def connect(rank: int = -1) -> dist.TCPStore:
    """A connection of its own to the store at MASTER_ADDR:MASTER_PORT. torchrun keeps the store; where no torchrun
    does, rank 0 has to.

    Raises RuntimeError (torch's) when it cannot be reached.
    """
    kept = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return dist.TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=rank == 0 and not kept,
        wait_for_workers=False,
        timeout=datetime.timedelta(seconds=_TIMEOUT_SECONDS),
    )


def meet(store: dist.Store, rank: int, world_size: int, *, timeout_seconds: float = _TIMEOUT_SECONDS) -> str:
    """A name that only the living ranks of this attempt share, to prefix what they write. Raises TimeoutError."""
    end = time.monotonic() + timeout_seconds
    mine = secrets.token_hex(8)
    if rank == 0:
        others = range(1, world_size)
        store.set("meet/offer", mine)
        while True:
            answers = {r: _read(store, f"meet/accept/{r}") for r in others}
            if all(answer.startswith(mine) for answer in answers.values()):
                # A rank that was started twice may have answered twice: its last word is confirmed.
                store.set(f"meet/go/{mine}", json.dumps(list(answers.values())))
                return mine
            _pause(end, f"rank {next(r for r in others if not answers[r].startswith(mine))} did not come")
    while True:
        offer = _read(store, "meet/offer")
        if offer:
            answer = f"{offer}:{mine}"
            store.set(f"meet/accept/{rank}", answer)
            go = _read(store, f"meet/go/{offer}")
            if go and answer in json.loads(go):
                return offer
        _pause(end, "rank 0 did not come")


def _read(store: dist.Store, key: str) -> str:
    return store.get(key).decode() if store.check([key]) else ""


def _pause(end: float, why: str) -> None:
    if time.monotonic() > end:
        raise TimeoutError(why)
    time.sleep(_POLL_SECONDS)
