"""A run folder has one writer; a dead writer's lock is taken over, a live one's is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fangcun.artifacts import RunLock
from fangcun.errors import FangcunError


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
