"""Two machines train as one process does; when the cable is pulled both end, say why once, and what was saved goes on."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import fangcun, tiny_flags, weights_of, write_story
from two_machines import NAMES, TwoMachines, why_not

from fangcun.artifacts import list_checkpoints, read_manifest
from fangcun.training import read_steps

pytestmark = pytest.mark.slow

FLAGS = ("--train.global_batch_size", "8", "--train.micro_batch_size", "4", "--train.max_steps", "40", "--eval.interval", "20",
         "--train.lr_decay_steps", "40", "--train.save_interval", "10", "--samples.interval", "1000")  # fmt: skip
FOREVER = ("--train.max_steps", "1000000", "--train.lr_decay_steps", "40")


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[TwoMachines]:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with TwoMachines(tmp_path) as both:
        yield both


def agents(machines: TwoMachines, text: Path, run: Path, *flags: str, restarts: int = 0) -> list[subprocess.Popen[str]]:
    """The command of docs/cluster.md, on both machines."""
    return [
        machines.start(
            number, sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1",
            "--max-restarts", str(restarts), "--rdzv-backend", "c10d", "--rdzv-endpoint", f"{NAMES[0]}:29400",
            "--rdzv-id", "demo-1", "--rdzv-conf", "read_timeout=15", "-m", "fangcun", *command(text, run, *flags), OMP_NUM_THREADS="1",
        )
        for number in (0, 1)
    ]  # fmt: skip


def command(text: Path, run: Path, *flags: str) -> list[str]:
    merged = [*FLAGS, *flags]
    return ["run", "demo", *tiny_flags("--text", str(text), "--out", str(run), *merged)]


def losses(run: Path) -> list[float]:
    return [record["loss"] for record in read_steps(run / "metrics.jsonl") if record["kind"] == "train"]


def test_two_machines_train_as_one_process_does(machines: TwoMachines, tmp_path: Path) -> None:
    text = write_story(tmp_path)
    started = agents(machines, text, tmp_path / "two")
    said = [process.communicate(timeout=240)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], "\n".join(said)
    alone = fangcun(*command(text, tmp_path / "one"))
    assert alone.returncode == 0, alone.stderr
    assert len(losses(tmp_path / "two")) == 40
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)
    assert sum(words.count("step 40/40") for words in said) == 1  # one voice


def test_a_pulled_cable_ends_both_within_a_minute_with_one_message_each(machines: TwoMachines, tmp_path: Path) -> None:
    text, run = write_story(tmp_path), tmp_path / "run"
    started = agents(machines, text, run, *FOREVER)
    give_up = time.monotonic() + 120
    while len(list_checkpoints(run)) < 2 and time.monotonic() < give_up:
        time.sleep(0.05)
    assert [process.poll() for process in started] == [None, None]
    machines.cut()
    cut_at = time.monotonic()
    said = [process.communicate(timeout=90)[0] for process in started]
    assert time.monotonic() - cut_at < 60
    assert all(process.returncode for process in started)
    for words in said:
        errors = [line for line in words.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, words
        assert "go on from" in errors[0]
    saved = list_checkpoints(run)[-1]
    read_manifest(saved, "checkpoint", verify=True)

    # What was saved is a checkpoint like any other: it goes on, on one machine.
    step = int(saved.name[5:])
    more = ("--train.max_steps", str(step + 5))
    (run / "writer.lock").unlink(missing_ok=True)  # it names a host that, for this one, cannot be asked
    resumed = fangcun(*command(text, run, *FOREVER, *more))
    assert resumed.returncode == 0, resumed.stderr
    assert list_checkpoints(run)[-1].name == f"step-{step + 5:08d}" and weights_of(list_checkpoints(run)[-1])
