"""Trackers show what metrics.jsonl holds: once, without a gap, over resumes, and whatever breaks, training goes on."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import fangcun, run_tiny, tiny_flags, write_story

from fangcun.config import Recipe, TrackingConfig, load_recipe
from fangcun.errors import FangcunError
from fangcun.training.metrics import StepLog, read_steps
from fangcun.training.resume import flatten
from fangcun.training.trackers import check_trackers, open_trackers, scalars_of, send, text_of

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
    (tag,) = (tag for tag in reader.Tags()["tensors"] if "samples" in tag)
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


def in_a_process(test: str, run: Path, name: str, **tracking: Any) -> None:
    """a_run_that_dies_twice, each part in a process of its own, for libraries that hold one run a process."""
    for resume_step, last_step in ((-1, 8), (6, 10), (9, 12)):
        program = (
            "import sys, os; from pathlib import Path; import test_trackers as t;"
            f"w = t.part_of_a_run(Path({str(run)!r}), [{name!r}], resume_step={resume_step}, last_step={last_step},"
            f" dies={last_step == 10}, told=t.settings(**{tracking!r})); print(w);"
            f" {'os._exit(len(w))' if last_step == 10 else 'sys.exit(len(w))'}"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=Path(__file__).parent, capture_output=True, text=True, encoding="utf-8",
            timeout=120, check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (Path(__file__).parents[2], Path(__file__).parents[1])))},
        )  # fmt: skip
        assert done.returncode == 0 and "Error" not in done.stderr, done.stdout + done.stderr


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
