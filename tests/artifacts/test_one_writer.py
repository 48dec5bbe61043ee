"""A run folder has one writer; a dead writer's lock is taken over, a live one's is not."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fangcun.artifacts import RunLock, lock
from fangcun.errors import FangcunError


@pytest.fixture(params=["system locks", "no system locks"], autouse=True)
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every promise holds on file systems with and without locks."""
    if request.param == "no system locks":
        monkeypatch.setattr(lock, "_lock", lambda handle: None)
    return request.param


def test_second_writer_is_refused_and_named(tmp_path: Path) -> None:
    with RunLock(tmp_path), pytest.raises(FangcunError, match=str(os.getpid())), RunLock(tmp_path):
        pass


def test_lock_is_gone_afterwards_and_can_be_taken_again(tmp_path: Path) -> None:
    for _ in range(2):
        with RunLock(tmp_path):
            assert (tmp_path / "writer.lock").is_file()
        assert list(tmp_path.iterdir()) == []


def test_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    code = "import os, sys; from pathlib import Path; from fangcun.artifacts import RunLock\n"
    code += "RunLock(Path(sys.argv[1])).__enter__(); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert (tmp_path / "writer.lock").is_file()
    with RunLock(tmp_path):
        assert json.loads((tmp_path / "writer.lock").read_text())["pid"] == os.getpid()


def test_recycled_pid_does_not_hold_the_lock(tmp_path: Path) -> None:
    if not Path("/proc/self/stat").exists():
        pytest.skip("process start times are known on Linux only")
    with RunLock(tmp_path):
        owner = json.loads((tmp_path / "writer.lock").read_text())
    (tmp_path / "writer.lock").write_text(json.dumps(owner | {"start": "1"}))
    with RunLock(tmp_path):
        pass


def test_a_job_that_was_started_again_takes_its_own_lock_from_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = {"host": "elsewhere", "pid": 1, "start": "", "since": "then", "system_lock": True, "job": "slurm-17"}
    for mine, taken in ((None, False), ("none", False), ("slurm-18", False), ("slurm-17", True)):
        (tmp_path / "writer.lock").write_text(json.dumps(owner))
        if mine is not None:
            monkeypatch.setenv("TORCHELASTIC_RUN_ID", mine)
        if taken:
            with RunLock(tmp_path):
                assert json.loads((tmp_path / "writer.lock").read_text())["job"] == "slurm-17"
        else:
            with pytest.raises(FangcunError, match="on host elsewhere"), RunLock(tmp_path):
                pass


def test_a_living_process_of_the_same_job_and_machine_keeps_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "slurm-17")
    with RunLock(tmp_path), pytest.raises(FangcunError, match="on this machine"), RunLock(tmp_path):
        pass


def test_lock_of_another_host_is_respected(tmp_path: Path) -> None:
    owner = {"host": "elsewhere", "pid": 1, "start": "", "since": "then"}
    (tmp_path / "writer.lock").write_text(json.dumps(owner))
    with pytest.raises(FangcunError, match="host elsewhere"), RunLock(tmp_path):
        pass
    assert (tmp_path / "writer.lock").is_file()


def test_torn_lock_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "writer.lock").write_text('{"host": "x')
    with RunLock(tmp_path):
        pass


@pytest.mark.parametrize("content", ["", "[]", "null", '{"host": "x"}', '{"host": "x", "pid": "many"}'])
def test_a_lock_file_that_names_nobody_is_taken_over(
    tmp_path: Path, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_PATIENCE_SECONDS", 0.05)
    (tmp_path / "writer.lock").write_text(content)
    with RunLock(tmp_path):
        assert json.loads((tmp_path / "writer.lock").read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_living_process_that_cannot_lock_files_keeps_its_lock(tmp_path: Path) -> None:
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "start": "", "since": "then"}
    (tmp_path / "writer.lock").write_text(json.dumps(owner))
    with pytest.raises(FangcunError, match=f"process {os.getpid()} on this machine since then"), RunLock(tmp_path):
        pass
    assert json.loads((tmp_path / "writer.lock").read_text()) == owner


def test_a_process_that_ended_and_was_not_waited_for_is_dead(tmp_path: Path) -> None:
    if not Path("/proc/self/stat").exists():
        pytest.skip("process states are known on Linux only")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    try:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # ended, but still in the table
        state, start = lock._process(ended.pid)
        assert state == "Z"
        owner = {"host": socket.gethostname(), "pid": ended.pid, "start": start, "since": "then"}
        (tmp_path / "writer.lock").write_text(json.dumps(owner))
        with RunLock(tmp_path):
            pass
    finally:
        ended.wait()


def test_a_file_system_without_hard_links_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **settings: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    with RunLock(tmp_path), pytest.raises(FangcunError, match=str(os.getpid())), RunLock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_refused_writer_leaves_the_lock_of_the_other_alone(tmp_path: Path) -> None:
    with RunLock(tmp_path):
        before = (tmp_path / "writer.lock").read_bytes()
        for _ in range(3):
            with pytest.raises(FangcunError), RunLock(tmp_path):
                pass
        assert (tmp_path / "writer.lock").read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["writer.lock"]


RACE = """
import json, os, socket, sys, time
from pathlib import Path
from fangcun.artifacts import RunLock, lock
from fangcun.errors import FangcunError

folder, rounds, has_locks, name = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "system locks", sys.argv[4]
if not has_locks:
    lock._lock = lambda handle: None
(folder / f"ready-{name}").touch()
while len(list(folder.glob("ready-*"))) < 2:
    time.sleep(0.001)
dead = {"host": socket.gethostname(), "pid": 2**22 + 5, "start": "1", "since": "then", "system_lock": has_locks}
entered = 0
for round in range(rounds):
    run = folder / f"run-{round}"
    run.mkdir(exist_ok=True)
    try:  # the first to come finds no lock and leaves a dead one, as a whole
        torn = folder / f"dead-{name}-{round}"
        torn.write_text(json.dumps(dead))
        os.link(torn, run / "writer.lock")
    except FileExistsError:
        pass
    (folder / f"at-{round}-{name}").touch()
    give_up = time.monotonic() + 10
    while len(list(folder.glob(f"at-{round}-*"))) < 2:
        assert time.monotonic() < give_up, "the other one failed"
    try:
        with RunLock(run):
            inside = os.open(run / "inside", os.O_CREAT | os.O_EXCL)  # fails when the other is inside
            time.sleep(0.002)
            (run / "inside").unlink()
            os.close(inside)
            entered += 1
    except FangcunError as error:
        assert "is being written by" in str(error), error
print(entered)
"""


def test_two_processes_at_a_dead_lock_are_never_both_inside(tmp_path: Path, file_system: str) -> None:
    rounds = 150
    command = [sys.executable, "-c", RACE, str(tmp_path), str(rounds), file_system]
    racers = [
        subprocess.Popen([*command, name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for name in "ab"
    ]
    outcomes = [racer.communicate(timeout=100) for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0], outcomes
    assert sum(int(out) for out, _ in outcomes) >= rounds
    assert not list(tmp_path.rglob("writer.lock*"))
