"""Ctrl-C and SIGTERM finish the step, save, say how to go on, and lose nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import fangcun, run_tiny, tiny_flags, weights_of, write_story

from fangcun.artifacts import list_checkpoints
from fangcun.training import read_steps
from fangcun.training.checkpoint import Progress
from fangcun.training.evaluator import Evaluator

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of this kind are POSIX")

LONG = [
    "--train.max_steps",
    "3000",
    "--train.lr_decay_steps",
    "3000",
    "--train.save_interval",
    "100000",
    "--eval.interval",
    "100000",
    "--samples.interval",
    "100000",
]


def start(text: Path, run: Path) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "fangcun",
        "run",
        "demo",
        *tiny_flags(*LONG, "--text", str(text), "--out", str(run)),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8")
    while process.poll() is None and sum(r["kind"] == "train" for r in read_steps(run / "metrics.jsonl")) < 5:
        time.sleep(0.02)
    assert process.poll() is None
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_prints_the_resume_command(tmp_path: Path, number: signal.Signals, code: int) -> None:
    text, run = write_story(tmp_path), tmp_path / "run"
    process = start(text, run)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    (checkpoint,) = list_checkpoints(run)
    stopped_at = int(checkpoint.name.split("-")[1])
    assert stopped_at == max(r["step"] for r in read_steps(run / "metrics.jsonl"))
    assert not (run / "writer.lock").exists()
    # The command it printed goes on from there.
    line = next(line for line in output.splitlines() if "fangcun run" in line)
    words = line[line.index("fangcun run") :].split()[1:]
    assert int(words[0] == "run")
    more = str(stopped_at + 2)
    resumed = fangcun(*words, "--train.max_steps", more)
    assert resumed.returncode == 0, resumed.stderr
    straight = fangcun(
        "run", "demo", *tiny_flags(*LONG, "--train.max_steps", more, "--text", str(text), "--out", str(tmp_path / "b"))
    )
    assert straight.returncode == 0, straight.stderr
    assert weights_of(list_checkpoints(run)[-1]) == weights_of(list_checkpoints(tmp_path / "b")[-1])


def test_stopped_in_its_first_evaluation_a_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, run = write_story(tmp_path), tmp_path / "run"
    evaluate = Evaluator.evaluate

    def stopped(evaluator: Evaluator, progress: Progress) -> bool:
        os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(evaluator, progress)

    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "evaluate", stopped)
        assert run_tiny(text, run) == 143
    assert [folder.name for folder in list_checkpoints(run)] == ["step-00000000"]
    assert run_tiny(text, run) == 0 and run_tiny(text, tmp_path / "whole") == 0
    assert weights_of(list_checkpoints(run)[-1]) == weights_of(list_checkpoints(tmp_path / "whole")[-1])


def test_second_ctrl_c_leaves_at_once_and_the_folder_is_whole(tmp_path: Path) -> None:
    text, run = write_story(tmp_path), tmp_path / "run"
    process = start(text, run)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.002)
    process.communicate(timeout=30)
    assert process.returncode == 130
    finished = fangcun(
        "run", "demo", *tiny_flags(*LONG, "--train.max_steps", "6", "--text", str(text), "--out", str(run))
    )
    assert finished.returncode == 0, finished.stderr


def test_second_writer_is_refused(tmp_path: Path) -> None:
    text, run = write_story(tmp_path), tmp_path / "run"
    process = start(text, run)
    try:
        second = fangcun("run", "demo", *tiny_flags(*LONG, "--text", str(text), "--out", str(run)))
        assert second.returncode == 1
        assert f"process {process.pid}" in second.stderr
        assert "Traceback" not in second.stderr
    finally:
        process.kill()
        process.communicate()
