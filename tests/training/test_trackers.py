"""Trackers show what metrics.jsonl holds: once, without a gap, over resumes, and whatever breaks, training goes on."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import fangcun, run_tiny, tiny_flags, write_story
from tracked_run import (
    EXPECTED_EVAL,
    EXPECTED_LOSS,
    PROMPT,
    a_run_that_dies_twice,
    part_of_a_run,
    records_of,
    settings,
)

from fangcun.config import load_recipe
from fangcun.errors import FangcunError
from fangcun.training.metrics import StepLog, read_steps
from fangcun.training.trackers import check_trackers, open_trackers, scalars_of, send, text_of

# ---------------------------------------------------------------------- records


def test_only_finite_numbers_are_points() -> None:
    record = {
        "kind": "train",
        "step": 3,
        "loss": 2.0,
        "tokens": 7,
        "bits_per_byte": None,
        "ok": True,
        "lr": float("nan"),
        "norm": "nan",
    }
    assert scalars_of(record) == {"train/loss": 2.0, "train/tokens": 7.0}


def test_each_prompt_has_a_name_of_its_own() -> None:
    prompts = ["却说", "却说 ", "长" * 99, "长" * 98, "a\nb", "a b", "...", "/", "\x00", ""]
    names = [text_of({"kind": "sample", "step": 1, "prompt": prompt, "text": "x"})[0] for prompt in prompts]
    assert len(set(names)) == len(prompts)
    for name in names:
        assert name.startswith("samples/") and name.isprintable() and name[-1] not in "./" and len(name) < 60
    assert names[0] == "samples/却说"


# ---------------------------------------------------------------------- back ends, read back by their own readers


def tensorboard_points(run: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    return {tag: [(e.step, e.value) for e in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def tensorboard_texts(run: Path) -> list[tuple[int, str]]:
    # The reader of the dashboard itself; the older one above does not purge texts.
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

    reader = EventAccumulator(str(run / "tensorboard"), size_guidance={"tensors": 0}).Reload()
    (tag,) = (tag for tag in reader.Tags()["tensors"] if "samples" in tag and tag.endswith("text_summary"))
    return [(e.step, e.tensor_proto.string_val[0].decode()) for e in reader.Tensors(tag)]


def test_tensorboard_reads_one_whole_curve_after_resumes(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run = tmp_path / "run"
    a_run_that_dies_twice(run, "tensorboard")
    points = tensorboard_points(run)
    assert points["train/loss"] == EXPECTED_LOSS
    assert points["eval/val_loss"] == EXPECTED_EVAL
    assert points["train/lr"] == [(step, 0.5) for step in range(1, 13)]
    assert tensorboard_texts(run) == [(step, f"{PROMPT}大喜  \n<{step}>") for step in (3, 6, 9, 12)]


def test_an_evaluation_made_again_is_there_once(tmp_path: Path) -> None:
    """A signal between an evaluation and its samples: the checkpoint's own step is evaluated again after the resume."""
    pytest.importorskip("tensorboard")
    run = tmp_path / "run"
    part_of_a_run(run, ["tensorboard"], resume_step=-1, last_step=6)
    for name in ("metrics", "samples"):
        StepLog(run / f"{name}.jsonl", resume_step=6, drop_evaluations=True).close()
    trackers = open_trackers(["tensorboard"], run, title="run", settings=settings(), resume_step=6, warn=pytest.fail)
    for record in records_of(6)[1:]:
        send(trackers, record)
    for tracker in trackers:
        tracker.finish()
    points = tensorboard_points(run)
    assert points["train/loss"] == EXPECTED_LOSS[:6] and points["eval/val_loss"] == EXPECTED_EVAL[:2]
    assert [step for step, _ in tensorboard_texts(run)] == [3, 6]


def test_a_tracker_added_later_gets_the_whole_history(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run = tmp_path / "run"
    part_of_a_run(run, ["jsonl"], resume_step=-1, last_step=8)
    part_of_a_run(run, ["tensorboard"], resume_step=6, last_step=12)
    assert tensorboard_points(run)["train/loss"] == EXPECTED_LOSS


# ---------------------------------------------------------------------- what is missing, what breaks, what stays ours


def fake_trackio(monkeypatch: pytest.MonkeyPatch, run: Path, log: Callable[..., None]) -> None:
    fake: Any = types.ModuleType("trackio")
    fake.__spec__ = importlib.util.spec_from_loader("trackio", None)
    fake.utils = types.SimpleNamespace(TRACKIO_DIR=str((run / "trackers" / "trackio").resolve()))

    def init(*_: Any, **__: Any) -> Any:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.excepthook = print
        print("hello from a library")
        return types.SimpleNamespace(log=log)

    fake.init, fake.finish, fake.Markdown = init, lambda: None, str
    fake.Api = lambda: types.SimpleNamespace(runs=lambda project: [])
    monkeypatch.setitem(sys.modules, "trackio", fake)
    for name in ("TRACKIO_DIR", "TRACKIO_SPACE_ID"):
        monkeypatch.setenv(name, "x")


def test_what_breaks_while_it_runs_warns_once_and_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def log(scalars: dict[str, float], step: int) -> None:
        calls.append(step)
        if step == 3:
            raise ConnectionError("no route to host")

    fake_trackio(monkeypatch, tmp_path / "run", log)
    warnings = part_of_a_run(tmp_path / "run", ["trackio"], resume_step=-1, last_step=9)
    assert calls == [1, 2, 3]
    assert len(warnings) == 1 and "trackio failed (ConnectionError: no route to host)" in warnings[0]
    assert "Training goes on" in warnings[0]
    assert len(read_steps(tmp_path / "run" / "metrics.jsonl")) == 12


def test_a_library_that_exits_when_opened_does_not_end_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_trackio(monkeypatch, tmp_path / "run", lambda *_, **__: None)

    def leave(*_: Any, **__: Any) -> None:
        raise SystemExit(3)

    monkeypatch.setattr(sys.modules["trackio"], "init", leave)
    (warning,) = part_of_a_run(tmp_path / "run", ["trackio"], resume_step=-1, last_step=2)
    assert "trackio could not be opened (SystemExit: 3)" in warning


def test_signals_hooks_and_output_stay_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_trackio(monkeypatch, tmp_path / "run", lambda *_, **__: None)
    before = signal.getsignal(signal.SIGINT), sys.excepthook
    part_of_a_run(tmp_path / "run", ["trackio"], resume_step=-1, last_step=2)
    assert (signal.getsignal(signal.SIGINT), sys.excepthook) == before
    assert capsys.readouterr().out == ""


def test_variables_of_other_programs_do_not_send_a_run_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_trackio(monkeypatch, tmp_path / "run", lambda *_, **__: None)
    monkeypatch.setenv("TRACKIO_SERVER_URL", "https://example.invalid")
    part_of_a_run(tmp_path / "run", ["trackio"], resume_step=-1, last_step=1)
    assert "TRACKIO_SERVER_URL" not in os.environ and "TRACKIO_SPACE_ID" not in os.environ


@pytest.mark.parametrize("name", ["tensorboard", "swanlab", "wandb", "trackio"])
def test_what_is_not_installed_is_said_before_any_work(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda module, *a: None if module == name else real(module, *a))
    with pytest.raises(
        FangcunError, match=rf"{name} is not installed\. Run pip install \S*{name}\S* \(the extra '{name}' of fangcun\)"
    ):
        run_tiny(write_story(tmp_path), tmp_path / "run", "--trackers", name)
    assert not (tmp_path / "run").exists()


def test_swanlab_without_its_dashboard_is_said_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda module, *_: None if module == "swanboard" else object())
    with pytest.raises(FangcunError, match=r'swanboard is not installed\. Run pip install "swanlab\[dashboard\]"'):
        check_trackers(["swanlab"], settings())
    check_trackers(["swanlab"], settings(swanlab_mode="offline"))


def test_going_online_without_a_login_is_said_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    wandb: Any = types.ModuleType("wandb")
    wandb.__spec__ = importlib.util.spec_from_loader("wandb", None)
    wandb.api = types.SimpleNamespace(api_key=None)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    with pytest.raises(FangcunError, match="run wandb login"):
        check_trackers(["wandb"], settings(wandb_mode="online"))
    wandb.api.api_key = "k"
    check_trackers(["wandb"], settings(wandb_mode="online"))


def test_a_folder_that_was_deleted_is_made_anew(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run = tmp_path / "run"
    part_of_a_run(run, ["tensorboard"], resume_step=-1, last_step=8)
    shutil.rmtree(run / "tensorboard")
    part_of_a_run(run, ["tensorboard"], resume_step=6, last_step=12)
    assert tensorboard_points(run)["train/loss"] == EXPECTED_LOSS


def test_what_a_tracker_missed_when_it_broke_is_told_when_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    fake_trackio(
        monkeypatch, tmp_path / "run", lambda scalars, step: steps.append(step) if "train/loss" in scalars else None
    )
    monkeypatch.setattr(sys.modules["trackio"], "init", lambda *_, **__: 1 / 0)
    (warning,) = part_of_a_run(tmp_path / "run", ["trackio"], resume_step=-1, last_step=6)
    assert "could not be opened (ZeroDivisionError" in warning and steps == []
    fake_trackio(
        monkeypatch, tmp_path / "run", lambda scalars, step: steps.append(step) if "train/loss" in scalars else None
    )
    assert part_of_a_run(tmp_path / "run", ["trackio"], resume_step=6, last_step=9) == []
    assert steps == list(range(1, 10))


def fake_wandb(monkeypatch: pytest.MonkeyPatch, server: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """A wandb whose server keeps what was logged; returns the arguments of each init."""
    fake: Any = types.ModuleType("wandb")
    fake.__spec__ = importlib.util.spec_from_loader("wandb", None)
    fake.api, fake.Settings, opened = types.SimpleNamespace(api_key="k"), dict, []

    def init(**given: Any) -> Any:
        opened.append(given)
        first = max(server, default=-1) + 1
        log = lambda row, step: server.setdefault(step, {}).update(row)  # noqa: E731
        return types.SimpleNamespace(log=log, step=first, url="https://example.invalid/run", finish=lambda: None)

    fake.init, fake.Html = init, lambda text, inject: text
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return opened


def test_wandb_online_gets_what_the_server_lacks_and_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server: dict[int, dict[str, Any]] = {}
    opened = fake_wandb(monkeypatch, server)
    online = settings(wandb_mode="online")
    part_of_a_run(tmp_path / "run", ["jsonl"], resume_step=-1, last_step=4, told=online)
    part_of_a_run(tmp_path / "run", ["wandb"], resume_step=3, last_step=8, told=online)
    part_of_a_run(tmp_path / "run", ["wandb"], resume_step=6, last_step=12, told=online)
    assert [(step, row["train/loss"]) for step, row in sorted(server.items())] == EXPECTED_LOSS
    assert [given["id"] for given in opened] == [opened[0]["id"]] * 2
    assert {given["mode"] for given in opened} == {"online"} and {given["resume"] for given in opened} == {"allow"}


def test_a_damaged_state_file_is_no_obstacle(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run = tmp_path / "run"
    part_of_a_run(run, ["tensorboard"], resume_step=-1, last_step=6)
    (run / "trackers" / "tensorboard.json").write_text("{", encoding="utf-8")
    part_of_a_run(run, ["tensorboard"], resume_step=6, last_step=12)
    assert tensorboard_points(run)["train/loss"] == EXPECTED_LOSS


# ---------------------------------------------------------------------- in a recipe, in a run


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tracking.wandb_mode", "online"], "no effect where trackers names no wandb"),
        (["--trackers", "tensorboard", "--tracking.project", "mine"], "names no swanlab or wandb or trackio"),
        (["--trackers", "swanlab", "--tracking.wandb_mode", "online"], "names no wandb"),
        (["--trackers", "swanlab", "--tracking.project", "我的"], "--tracking.project: expected up to 100 letters"),
        (["--trackers", "swanlab", "--tracking.swanlab_mode", "online"], "local"),
    ],
)
def test_settings_that_nothing_reads_are_refused(flags: list[str], message: str) -> None:
    with pytest.raises(FangcunError, match=message):
        load_recipe("demo", flags)


def test_a_run_and_its_resumed_part_are_one_curve(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    text, run = write_story(tmp_path), tmp_path / "run"
    flags = ["--trackers", "jsonl", "tensorboard"]
    assert run_tiny(text, run, *flags, "--train.max_steps", "4") == 0
    assert run_tiny(text, run, *flags, "--train.max_steps", "8") == 0
    records = read_steps(run / "metrics.jsonl")
    points = tensorboard_points(run)
    for kind, name in (
        ("train", "loss"),
        ("train", "grad_norm"),
        ("train", "tokens_per_second"),
        ("eval", "val_loss"),
        ("final", "val_bits_per_byte"),
    ):
        written = [(r["step"], r[name]) for r in records if r["kind"] == kind]
        assert points[f"{kind}/{name}"] == [(step, pytest.approx(value, rel=1e-6)) for step, value in written]
    assert [step for step, _ in tensorboard_texts(run)] == [r["step"] for r in read_steps(run / "samples.jsonl")]


def test_trackers_change_nothing_in_the_training(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    text = write_story(tmp_path)
    curves = []
    for name in ("jsonl", "tensorboard"):
        assert run_tiny(text, tmp_path / name, "--trackers", name) == 0
        curves.append(
            [(r["step"], r.get("loss"), r.get("val_loss")) for r in read_steps(tmp_path / name / "metrics.jsonl")]
        )
    assert curves[0] == curves[1]


def test_a_run_says_how_to_look_at_its_trackers(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    text = write_story(tmp_path)
    done = fangcun(
        "run", "demo", *tiny_flags("--text", str(text), "--out", str(tmp_path / "run"), "--trackers", "tensorboard")
    )
    assert done.returncode == 0, done.stderr
    assert f"tensorboard --logdir {tmp_path}" in done.stdout
