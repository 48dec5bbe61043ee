"""A run with trackers that dies twice and goes on, in this process or in three: what it must leave as curves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from fangcun.config import Recipe, TrackingConfig
from fangcun.training.metrics import StepLog
from fangcun.training.resume import flatten
from fangcun.training.trackers import open_trackers, send

PROMPT = "却说曹操"


def settings(**tracking: Any) -> dict[str, Any]:
    return flatten(Recipe(tracking=TrackingConfig(**tracking)))


def records_of(step: int) -> list[dict[str, Any]]:
    """What a run writes at a step: numbers always, an evaluation and a sample at every third."""
    found: list[dict[str, Any]] = [
        {"kind": "train", "step": step, "loss": 3 - step / 64, "bits_per_byte": None, "lr": 0.5, "tokens": 8 * step}
    ]
    if step % 3 == 0:
        found.append({"kind": "eval", "step": step, "val_loss": 4 - step / 64, "val_comparable": True})
        found.append({"kind": "sample", "step": step, "prompt": PROMPT, "text": f"大喜\n<{step}>"})
    return found


def part_of_a_run(
    run: Path,
    names: list[str],
    *,
    resume_step: int,
    last_step: int,
    dies: bool = False,
    told: dict[str, Any] | None = None,
) -> list[str]:
    """Steps after `resume_step` up to `last_step`, as the trainer writes them; returns the warnings."""
    run.mkdir(exist_ok=True)
    warnings: list[str] = []
    logs = {name: StepLog(run / f"{name}.jsonl", resume_step=resume_step) for name in ("metrics", "samples")}
    trackers = open_trackers(
        names, run, title=run.name, settings=told or settings(), resume_step=resume_step, warn=warnings.append
    )
    for step in range(max(1, resume_step + 1), last_step + 1):
        for record in records_of(step):
            logs["samples" if record["kind"] == "sample" else "metrics"].write(record)
            send(trackers, record)
    for log in logs.values():
        log.close()
    if not dies:
        for tracker in trackers:
            tracker.finish()
    return warnings


def a_run_that_dies_twice(run: Path, name: str, told: dict[str, Any] | None = None) -> None:
    """Steps 1 to 8, gone on with from 6 to 10, gone on with from 9 to 12."""
    assert part_of_a_run(run, [name], resume_step=-1, last_step=8, told=told) == []
    assert part_of_a_run(run, [name], resume_step=6, last_step=10, told=told) == []
    assert part_of_a_run(run, [name], resume_step=9, last_step=12, told=told) == []


EXPECTED_LOSS = [(step, 3 - step / 64) for step in range(1, 13)]
EXPECTED_EVAL = [(step, 4 - step / 64) for step in (3, 6, 9, 12)]


def in_a_process(test: str, run: Path, name: str, **tracking: Any) -> None:
    """a_run_that_dies_twice, each part in a process of its own, for libraries that hold one run a process."""
    for resume_step, last_step in ((-1, 8), (6, 10), (9, 12)):
        program = (
            "import sys, os; from pathlib import Path; import tracked_run as t;"
            f"w = t.part_of_a_run(Path({str(run)!r}), [{name!r}], resume_step={resume_step}, last_step={last_step},"
            f" dies={last_step == 10}, told=t.settings(**{tracking!r})); print(w);"
            f" {'os._exit(len(w))' if last_step == 10 else 'sys.exit(len(w))'}"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=Path(__file__).parent, capture_output=True, text=True, encoding="utf-8",
            timeout=120, check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (Path(__file__).parents[2], Path(__file__).parents[1])))},
        )  # fmt: skip
        assert done.returncode == 0 and "Error" not in done.stderr, done.stdout + done.stderr
