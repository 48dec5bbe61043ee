"""Killed, terminated, restarted: several ranks end cleanly, and go on as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from ranks import environment, run_command, torchrun, torchrun_command, trace
from tiny import weights_of

from fangcun.artifacts import list_checkpoints, read_manifest

pytestmark = pytest.mark.slow
FLAGS = ("--train.max_steps", "60", "--train.save_interval", "10", "--eval.interval", "20", "--samples.interval", "30")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    done = torchrun(2, *run_command(text, run, *FLAGS))
    assert done.returncode == 0, done.stderr
    return run


def start(text: Path, run: Path, *, flags: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """The run, once it has its first checkpoint."""
    process = subprocess.Popen(
        torchrun_command(2, *run_command(text, run, *FLAGS), flags=flags),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    end = time.monotonic() + 120
    while not list_checkpoints(run):
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.02)
    return process


def ranks_of(run: Path) -> list[int]:
    """Process ids of the ranks, in order."""
    listed = subprocess.run(["pgrep", "-f", "-a", str(run)], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "distributed.run" not in line]


def same_end(run: Path, undisturbed: Path) -> None:
    for checkpoint in list_checkpoints(run):
        read_manifest(checkpoint, "checkpoint", verify=True)
    assert weights_of(list_checkpoints(run)[-1]) == weights_of(list_checkpoints(undisturbed)[-1])
    assert trace(run) == trace(undisturbed)
    assert not list((run / "checkpoints").glob("*.tmp*"))


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_ends_the_job_soon_and_the_next_start_goes_on(
    tmp_path: Path, text: Path, undisturbed: Path, victim: int
) -> None:
    run = tmp_path / "run"
    process = start(text, run)
    os.kill(ranks_of(run)[victim], signal.SIGKILL)
    killed = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - killed < 60
    assert process.returncode != 0
    assert "another rank of this run is gone. The newest checkpoint is" in err
    assert torchrun(2, *run_command(text, run, *FLAGS)).returncode == 0
    same_end(run, undisturbed)


def test_torchrun_restarts_the_run_by_itself(tmp_path: Path, text: Path, undisturbed: Path) -> None:
    run = tmp_path / "run"
    process = start(text, run, flags=("--max-restarts", "2"))
    os.kill(ranks_of(run)[1], signal.SIGKILL)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    same_end(run, undisturbed)


def test_sigterm_saves_on_all_ranks_and_the_next_start_goes_on(tmp_path: Path, text: Path, undisturbed: Path) -> None:
    run = tmp_path / "run"
    process = start(text, run)
    process.terminate()
    out, err = process.communicate(timeout=100)
    assert "Stopped by SIGTERM; saved." in out
    assert err.count("Stopping after this step") == 1
    assert torchrun(2, *run_command(text, run, *FLAGS)).returncode == 0
    assert weights_of(list_checkpoints(run)[-1]) == weights_of(list_checkpoints(undisturbed)[-1])
