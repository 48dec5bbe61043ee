"""The trackers' own libraries, offline: each holds one run with the whole curve after a run that died twice."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tracked_run import (
    EXPECTED_EVAL,
    EXPECTED_LOSS,
    PROMPT,
    in_a_process,
)


@pytest.mark.slow
@pytest.mark.parametrize("shared", [False, True])
def test_swanlab_shows_one_experiment_with_the_whole_curve(shared: bool, tmp_path: Path) -> None:
    pytest.importorskip("swanlab")
    pytest.importorskip("swanboard")
    run = tmp_path / "run"
    tracking = {"folder": str(tmp_path / "all")} if shared else {}
    if shared:  # another run in the same dashboard stays as it is
        in_a_process("swanlab", tmp_path / "other", "swanlab", **tracking)
    in_a_process("swanlab", run, "swanlab", **tracking)
    folder = (tmp_path / "all" if shared else run / "trackers") / "swanlab"
    with sqlite3.connect(folder / "runs.swanlab") as base:
        experiments = dict(base.execute("select name, run_id from experiment").fetchall())
        kinds = {(tag, kind) for tag, kind in base.execute("select name, type from tag").fetchall()}
    assert set(experiments) == ({"run", "other"} if shared else {"run"})
    assert {("train/loss", "line"), ("eval/val_loss", "line"), (f"samples/{PROMPT}", "text")} <= kinds
    for run_id in experiments.values():
        curves = {}
        with sqlite3.connect(folder / "runs.swanlab") as base:
            rows = base.execute(
                "select tag.name, tag.folder from tag join experiment on tag.experiment_id = experiment.id where run_id = ?",
                (run_id,),
            ).fetchall()
        for tag, where in rows:
            lines = [
                line
                for log in (folder / run_id / "logs" / where).glob("*.log")
                for line in log.read_text(encoding="utf-8").splitlines()
            ]
            curves[tag] = [(point["index"], point["data"]) for point in map(json.loads, lines)]
        assert curves["train/loss"] == EXPECTED_LOSS
        assert curves["eval/val_loss"] == EXPECTED_EVAL
        assert [step for step, _ in curves[f"samples/{PROMPT}"]] == [3, 6, 9, 12]
        texts = sorted(file.read_text(encoding="utf-8") for file in (folder / run_id / "media").rglob("*.txt"))
        assert sorted(f"{PROMPT}大喜\n<{step}>" for step in (3, 6, 9, 12)) == texts


@pytest.mark.slow
def test_trackio_holds_one_run_with_the_whole_curve(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    run = tmp_path / "run"
    in_a_process("trackio", run, "trackio")
    with sqlite3.connect(run / "trackers" / "trackio" / "fangcun.db") as base:
        rows = base.execute("select run_name, step, metrics from metrics order by step").fetchall()
    assert len({name for name, _, _ in rows}) == 1
    decoded = [(step, json.loads(metrics)) for _, step, metrics in rows]
    assert [(step, m["train/loss"]) for step, m in decoded if "train/loss" in m] == EXPECTED_LOSS
    assert [(step, m["eval/val_loss"]) for step, m in decoded if "eval/val_loss" in m] == EXPECTED_EVAL
    assert [step for step, m in decoded if f"samples/{PROMPT}" in m] == [3, 6, 9, 12]


def log_records(data: bytes) -> list[bytes]:
    """The records of a LevelDB log (blocks of 32 KiB; checksum, length, type before each piece) after 7 bytes of heading."""
    found, position = [b""], 7
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:  # too little left of the block for another piece
            position += 32768 - position % 32768
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        found[-1] += data[position + 7 : position + 7 + length]
        if kind in (1, 4):  # whole, or the last piece
            found.append(b"")
        position += 7 + length
    return found[:-1]


@pytest.mark.slow
def test_wandb_offline_is_one_folder_with_the_whole_curve(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    run = tmp_path / "run"
    in_a_process("wandb", run, "wandb")
    from wandb.proto import wandb_internal_pb2

    (file,) = (run / "trackers" / "wandb").glob("offline-run-*/*.wandb")
    curves: dict[str, list[tuple[int, Any]]] = {}
    for data in log_records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            for item in record.history.item:
                name = ".".join(item.nested_key).removesuffix("._type")
                curves.setdefault(name, []).append((record.history.step.num, json.loads(item.value_json)))
    assert curves["train/loss"] == EXPECTED_LOSS
    assert curves["eval/val_loss"] == EXPECTED_EVAL
    assert [step for step, _ in curves[f"samples/{PROMPT}"]] == [3, 6, 9, 12]
