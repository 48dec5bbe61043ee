"""Pull the plug at random moments in every stage: the run ends with the weights of the undisturbed run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import fangcun, tiny_flags, weights_of, write_story

from fangcun.artifacts import MANIFEST, list_checkpoints, read_manifest
from fangcun.training import read_steps

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")]

LONGER = ["--train.max_steps", "40", "--train.save_interval", "5", "--tokenizer.vocab_size", "600"]


def arguments(text: Path, run: Path) -> list[str]:
    return ["run", "demo", *tiny_flags(*LONGER, "--text", str(text), "--out", str(run))]


def moments(run: Path, draw: random.Random) -> list[tuple[str, Callable[[], bool]]]:
    """One condition a stage; the kill comes a random while after it holds."""
    step = draw.randrange(2, 35)
    return [
        ("start", lambda: True),
        ("corpus", lambda: any(run.glob("corpus.tmp-*")) or (run / "corpus").exists()),
        ("tokenizer", lambda: any(run.glob("tokenizer.tmp-*")) or (run / "tokenizer").exists()),
        ("tokens", lambda: any(run.glob("tokens.tmp-*")) or (run / "tokens").exists()),
        ("saving", lambda: any(run.glob("checkpoints/*.tmp-*")) or len(list_checkpoints(run)) > 1),
        ("training", lambda: len(read_steps(run / "metrics.jsonl")) > step),
    ]


def kill_at(command: list[str], reached: Callable[[], bool], delay_seconds: float) -> int:
    """Start, wait for the moment, SIGKILL; the exit code (-9 when it was in time)."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    while process.poll() is None and not reached():
        time.sleep(0.005)
    time.sleep(delay_seconds)
    process.send_signal(signal.SIGKILL)
    return process.wait()


def assert_nothing_torn(run: Path) -> None:
    """Every folder that bears a final name is whole."""
    for kind, folder in [(k, run / k) for k in ("corpus", "tokenizer", "tokens")]:
        if folder.exists():
            read_manifest(folder, kind, verify=True)
    for folder in run.glob("checkpoints/step-????????"):
        assert (folder / MANIFEST).is_file(), folder
        read_manifest(folder, "checkpoint", verify=True)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(4))
def test_killed_run_ends_with_the_weights_of_the_undisturbed_one(tmp_path: Path, seed: int) -> None:
    text = write_story(tmp_path, sentences=6000)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = fangcun(*arguments(text, whole))
    assert done.returncode == 0, done.stderr
    draw = random.Random(seed)
    kills = 0
    for _name, reached in moments(killed, draw):
        code = kill_at([sys.executable, "-m", "fangcun", *arguments(text, killed)], reached, draw.uniform(0, 0.3))
        kills += code == -signal.SIGKILL
        if killed.exists():
            assert_nothing_torn(killed)
    assert kills >= 4
    finished = fangcun(*arguments(text, killed))
    assert finished.returncode == 0, finished.stderr
    assert_nothing_torn(killed)
    assert not list(killed.rglob("*.tmp-*"))
    assert weights_of(list_checkpoints(killed)[-1]) == weights_of(list_checkpoints(whole)[-1])
    assert [r["loss"] for r in read_steps(killed / "metrics.jsonl") if r["kind"] == "train"] == [
        r["loss"] for r in read_steps(whole / "metrics.jsonl") if r["kind"] == "train"
    ]
