"""A job that Slurm interrupts in mid-run ends with the weights of a run that nobody disturbed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from local_slurm import LocalSlurm
from tiny import fangcun, tiny_flags, weights_of, write_story

from fangcun.artifacts import list_checkpoints, read_manifest
from fangcun.training import read_steps

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="Slurm runs on Linux")]

LONG = ["--train.max_steps", "400", "--train.save_interval", "100000", "--eval.interval", "100000",
        "--samples.interval", "100000", "--train.lr_decay_steps", "400", "--train.micro_batch_size", "2"]  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(the text, a run of two processes over it that nobody interrupted)."""
    folder = tmp_path_factory.mktemp("undisturbed")
    text = write_story(folder)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, "-m", "fangcun", "run", "demo", *tiny_flags(*LONG, "--text", str(text), "--out", str(folder / "run"))],
        capture_output=True, encoding="utf-8", errors="replace", timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return text, folder / "run"


def submit(slurm: LocalSlurm, text: Path, run: Path, *options: str) -> int:
    """Launch a job as a user would; its number."""
    flags = tiny_flags(*LONG, "--text", str(text), "--out", str(run))
    done = subprocess.run(
        [sys.executable, "-m", "fangcun", "launch", "slurm", "demo", *options, *flags],
        env=slurm.environment, capture_output=True, encoding="utf-8", timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return int((run / "slurm" / "job").read_text())


def steps_logged(run: Path) -> int:
    return max((r["step"] for r in read_steps(run / "metrics.jsonl") if r["kind"] == "train"), default=0)


def wait_for_steps(slurm: LocalSlurm, job: int, run: Path, step: int) -> None:
    give_up = time.monotonic() + 90
    while steps_logged(run) < step and time.monotonic() < give_up:
        assert slurm.state(job) in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING"), log(run)
        time.sleep(0.05)
    assert steps_logged(run) >= step, log(run)


def log(run: Path) -> str:
    return "\n".join(file.read_text(errors="replace") for file in (run / "slurm").glob("log-*.txt"))


def assert_same_end(run: Path, other: Path) -> None:
    newest, reference = list_checkpoints(run)[-1], list_checkpoints(other)[-1]
    assert newest.name == reference.name
    read_manifest(newest, "checkpoint", verify=True)
    assert weights_of(newest) == weights_of(reference)


def test_a_job_that_slurm_interrupts_twice_ends_with_the_weights_of_the_undisturbed_run(
    slurm: LocalSlurm, tmp_path: Path, undisturbed: tuple[Path, Path]
) -> None:
    text, whole = undisturbed
    run = tmp_path / "有 空格's run"  # a path that needs quoting everywhere
    again = ["launch", "slurm", "demo", *tiny_flags(*LONG, "--text", str(text), "--out", str(run))]
    job = submit(slurm, text, run, "--nodes", "2", "--time", "00:30:00")
    wait_for_steps(slurm, job, run, 20)
    second = fangcun(*again, env=slurm.environment)
    assert second.returncode == 1 and f"job {job}" in second.stderr and "RUNNING" in second.stderr

    slurm.ask("scontrol", "requeue", str(job))
    assert slurm.wait_for(job, "PENDING") == "PENDING", log(run)
    (saved,) = list_checkpoints(run)  # nothing is saved on the way: this is what the requeue saved
    first_part = int(saved.name[5:])
    assert 20 <= first_part < 400
    read_manifest(saved, "checkpoint", verify=True)

    wait_for_steps(slurm, job, run, first_part + 20)
    slurm.ask("scancel", "--batch", "--signal=USR1", str(job))  # what --signal=B:USR1 sends before the time is up
    assert slurm.wait_for(job, "PENDING") == "PENDING", log(run)
    assert first_part + 20 <= int(list_checkpoints(run)[-1].name[5:]) < 400
    assert "time is nearly up" in log(run)

    assert slurm.wait_for(job, "COMPLETED", "FAILED") == "COMPLETED", log(run)
    assert_same_end(run, whole)
    assert not list(run.rglob("*.tmp-*")) and not (run / "writer.lock").exists()
    third = fangcun(*again, env=slurm.environment)
    assert third.returncode == 1 and "is a finished run (step 400)" in third.stderr


def test_a_cancelled_job_saves_and_stays_cancelled(
    slurm: LocalSlurm, tmp_path: Path, undisturbed: tuple[Path, Path]
) -> None:
    text, _ = undisturbed
    run = tmp_path / "run"
    job = submit(slurm, text, run)
    wait_for_steps(slurm, job, run, 20)
    slurm.ask("scancel", str(job))
    give_up = time.monotonic() + 60
    while not list_checkpoints(run) and time.monotonic() < give_up:
        time.sleep(0.1)
    (saved,) = list_checkpoints(run)
    read_manifest(saved, "checkpoint", verify=True)
    assert slurm.wait_for(job, "CANCELLED", "FAILED", "COMPLETED") == "CANCELLED"


def test_what_sbatch_refuses_is_one_sentence(slurm: LocalSlurm, tmp_path: Path) -> None:
    text = write_story(tmp_path)
    done = fangcun(
        "launch", "slurm", "demo", "--partition", "nowhere", "--text", str(text), "--out", str(tmp_path / "run"),
        env=slurm.environment,
    )  # fmt: skip
    assert done.returncode == 1
    assert "sbatch refused" in done.stderr and "partition" in done.stderr and "Traceback" not in done.stderr
