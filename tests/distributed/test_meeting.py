"""Ranks find one another in a store that dead processes have written to, and notice who falls silent."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import torch.distributed as dist

from fangcun.errors import FangcunError
from fangcun.training.distributed import Ranks, ranks_from_environment
from fangcun.training.rendezvous import meet


def meet_all(store: dist.Store, world_size: int, missing: tuple[int, ...] = ()) -> dict[int, str]:
    found: dict[int, str] = {}

    def join(rank: int) -> None:
        try:
            found[rank] = meet(store, rank, world_size, timeout_seconds=2 if missing else 30)
        except TimeoutError as error:
            found[rank] = f"timeout: {error}"

    threads = [threading.Thread(target=join, args=(r,)) for r in range(world_size) if r not in missing]
    for thread in reversed(threads):  # the first rank comes last
        thread.start()
        time.sleep(0.03)
    for thread in threads:
        thread.join()
    return found


def test_every_attempt_meets_under_a_name_of_its_own() -> None:
    store = dist.HashStore()
    names = []
    for _ in range(3):
        found = meet_all(store, 4)
        assert len(set(found.values())) == 1
        names.append(found[0])
    assert len(set(names)) == 3


def test_what_a_dead_attempt_left_confirms_nobody() -> None:
    store = dist.HashStore()
    meet_all(store, 3)
    found = meet_all(store, 3, missing=(2,))  # all its answers are still there, from the first attempt
    assert all(name.startswith("timeout") for name in found.values())
    assert "rank 2 did not come" in found[0]
    assert len(set(meet_all(store, 3).values())) == 1


def test_half_a_description_of_ranks_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(FangcunError, match=r"WORLD_SIZE is 2, but RANK is not set.*torchrun"):
        ranks_from_environment()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert ranks_from_environment() == Ranks()


_LISTENER = """
import sys, time
import torch.distributed as dist
from fangcun.training import heartbeat
heartbeat.BEAT_SECONDS, heartbeat.PATIENCE_SECONDS = 0.1, 1.0
store = dist.TCPStore("127.0.0.1", int(sys.argv[1]), is_master=False)
beat = heartbeat.Heartbeat(int(sys.argv[2]), 0, 2)
beat.start(store)
print("up", flush=True)
time.sleep(float(sys.argv[3]))
beat.stop()
print("lived")
"""


@pytest.fixture
def port() -> Iterator[str]:
    """Where a store listens, as torchrun's does."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    yield str(store.port)
    del store


def test_a_silent_rank_ends_the_others_with_one_sentence(port: str) -> None:
    def rank(number: int, seconds: float) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", _LISTENER, port, str(number), str(seconds)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    listener, silent = rank(0, 60), rank(1, 60)
    for process in (listener, silent):
        assert process.stdout is not None and process.stdout.readline() == "up\n"
    time.sleep(2)
    assert listener.poll() is None
    silent.kill()
    silent.wait()
    out, err = listener.communicate(timeout=30)
    assert listener.returncode == 75
    assert err.count("error: rank 1 on ") == 1
    assert "run the same command again" in err
    assert "lived" not in out


def test_a_rank_that_says_goodbye_is_not_missed(port: str) -> None:
    command = [sys.executable, "-c", _LISTENER, port]
    leaver = subprocess.Popen([*command, "1", "1"])
    stayer = subprocess.run([*command, "0", "12"], capture_output=True, text=True, timeout=60, check=False)
    assert leaver.wait() == 0
    assert stayer.returncode == 0, stayer.stderr
    assert "lived" in stayer.stdout
