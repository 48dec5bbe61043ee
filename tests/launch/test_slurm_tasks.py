"""Corpus and packing as job arrays of Slurm: the files of a single process, failures named, interruptions survived."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from local_slurm import LocalSlurm
from tiny import fangcun, story, tiny_flags

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="Slurm runs on Linux")]


@pytest.fixture(autouse=True)
def _datatrove() -> None:
    pytest.importorskip("datatrove", reason="datatrove is not installed (extra cluster)")


def flags(text: Path, out: Path, *more: str) -> list[str]:
    slurm = ["--cluster.executor", "slurm", "--cluster.tasks", "3", "--cluster.time", "10"]
    return tiny_flags("--text", str(text), "--corpus.txt_split", "blank_lines", "--out", str(out), *slurm, *more)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        paragraphs = story(number, 300).replace("\n", "\n\n")
        (folder / f"{number}.txt.gz").write_bytes(gzip.compress(paragraphs.encode(), mtime=0))
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}


def test_the_files_are_those_of_a_single_process(slurm: LocalSlurm, tmp_path: Path, text: Path) -> None:
    run = tmp_path / "有 空格's run"
    alone = fangcun("pack", "demo", *tiny_flags("--text", str(text), "--corpus.txt_split", "blank_lines",
                                                "--out", str(tmp_path / "alone")))  # fmt: skip
    assert alone.returncode == 0, alone.stderr
    done = fangcun("pack", "demo", *flags(text, run), env=slurm.environment)
    assert done.returncode == 0, done.stderr
    assert f"corpus     11 tasks by slurm; logs in {run}/cluster/corpus" in done.stdout
    assert "corpus     submitted jobs" in done.stdout and "tokens     submitted jobs" in done.stdout
    for stage in ("corpus", "tokenizer", "tokens"):
        assert files(run / stage) == files(tmp_path / "alone" / stage)
    assert not list(run.glob("*.work"))


def test_a_failed_task_is_named_and_what_waits_for_it_is_gone(slurm: LocalSlurm, tmp_path: Path, text: Path) -> None:
    packed = text / "1.txt.gz"
    whole = packed.read_bytes()
    packed.write_bytes(whole[: len(whole) // 2])
    done = fangcun("corpus", "demo", *flags(text, tmp_path / "run"), env=slurm.environment)
    assert done.returncode == 1
    assert "phase read that are not done: 1 of 3" in done.stderr and "does not unpack" in done.stderr
    assert f"(log: {tmp_path}/run/cluster/corpus/read/logs/task_00001.log)" in done.stderr
    assert slurm.ask("squeue", "--noheader").strip() == ""
    marks = tmp_path / "run" / "cluster" / "corpus" / "read" / "completions"
    assert sorted(mark.name for mark in marks.iterdir()) == ["00000", "00002"]


def test_after_a_failure_the_same_command_runs_the_missing_tasks_only(
    slurm: LocalSlurm, tmp_path: Path, text: Path
) -> None:
    run = tmp_path / "run"
    limited = flags(text, run, "--corpus.max_broken_share", "0.0001")
    broken = gzip.decompress((text / "2.txt.gz").read_bytes()) + b"\xff" * 200
    (text / "2.txt.gz").write_bytes(gzip.compress(broken, mtime=0))
    first = fangcun("corpus", "demo", *limited, env=slurm.environment)
    assert first.returncode == 1 and "phase decide that are not done: 1 of 1. Task 0: The corpus has" in first.stderr
    again = fangcun("corpus", "demo", *flags(text, run, "--corpus.max_broken_share", "0.5"), env=slurm.environment)
    assert again.returncode == 0 and "11 tasks by slurm, 3 of them done before" in again.stdout, again.stderr


def test_what_sbatch_refuses_is_one_sentence(slurm: LocalSlurm, tmp_path: Path, text: Path) -> None:
    done = fangcun("corpus", "demo", *flags(text, tmp_path / "run", "--cluster.partition", "nowhere"),
                   env=slurm.environment)  # fmt: skip
    assert done.returncode == 1 and "sbatch refused the job: invalid partition specified: nowhere" in done.stderr


def test_interrupted_the_jobs_go_on_and_the_same_command_waits_for_them(
    slurm: LocalSlurm, tmp_path: Path, text: Path
) -> None:
    run = tmp_path / "run"
    slurm.ask("scontrol", "update", "partitionname=main", "state=down")  # so that they wait
    try:
        command = [sys.executable, "-m", "fangcun", "corpus", "demo", *flags(text, run)]
        first = subprocess.Popen(
            command, env=slurm.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        file, give_up = run / "cluster" / "corpus" / "jobs", time.monotonic() + 60
        while not file.exists() and time.monotonic() < give_up:
            time.sleep(0.1)
        jobs = file.read_text().split()
        time.sleep(1)
        first.send_signal(signal.SIGINT)
        said, _ = first.communicate(timeout=60)
        assert first.returncode == 130 and f"scancel {' '.join(jobs)}" in said, said
        assert all(slurm.state(int(job)) == "PENDING" for job in jobs)
        other = fangcun("corpus", "demo", *flags(text, run, "--filter.min_characters", "9"), env=slurm.environment)
        assert other.returncode == 1 and "of an earlier command, with other settings" in other.stderr
    finally:
        slurm.ask("scontrol", "update", "partitionname=main", "state=up")
    again = fangcun("corpus", "demo", *flags(text, run), env=slurm.environment)
    assert again.returncode == 0, again.stderr
    assert f"waits for jobs {', '.join(jobs)}, submitted before" in again.stdout or "submitted" not in again.stdout
    assert not slurm.ask("squeue", "--noheader").strip()
