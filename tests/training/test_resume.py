"""A run that was stopped and resumed is bitwise the run that never stopped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tiny import run_tiny, tiny_flags, weights_of, write_story

from fangcun import pipeline
from fangcun.artifacts import list_checkpoints
from fangcun.config import load_recipe
from fangcun.errors import FangcunError
from fangcun.training import read_progress, read_steps
from fangcun.training.resume import check_tokens, choose_checkpoint, continue_with


def curves(run: Path) -> list[dict]:
    """Metrics without what a clock or a memory meter writes."""
    timed = ("seconds", "tokens_per_second", "data_wait_share", "saving_seconds", "memory_bytes")
    return [{k: v for k, v in r.items() if k not in timed} for r in read_steps(run / "metrics.jsonl")]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("micro_batch_size", ["4", "1"])
def test_resume_is_bitwise_equal(tmp_path: Path, text: Path, precision: str, micro_batch_size: str) -> None:
    flags = ["--precision", precision, "--train.micro_batch_size", micro_batch_size, "--model.dropout", "0.1"]
    flags += ["--train.lr_decay_steps", "6"]  # the schedule must not depend on where the run is cut
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run_tiny(text, whole, *flags) == 0
    assert run_tiny(text, cut, *flags, "--train.max_steps", "4") == 0
    assert run_tiny(text, cut, *flags) == 0
    newest = [list_checkpoints(run)[-1] for run in (whole, cut)]
    assert [c.name for c in newest] == ["step-00000006"] * 2
    assert weights_of(newest[0]) == weights_of(newest[1])
    # Data order (the losses of each step) and samples are the same too; a run that ended at 4 also evaluated there.
    trained = [[r for r in curves(run) if r["kind"] == "train"] for run in (whole, cut)]
    assert trained[0] == trained[1]
    samples = [[s for s in read_steps(run / "samples.jsonl") if s["step"] in (3, 6)] for run in (whole, cut)]
    assert samples[0] == samples[1] != []


def test_resume_is_bitwise_equal_with_muon_wsd_and_a_table_of_pairs(tmp_path: Path, text: Path) -> None:
    flags = ["--optimizer.name", "muon", "--optimizer.muon_lr", "0.01", "--train.lr_schedule", "wsd"]
    flags += ["--train.lr_decay_share", "0.5", "--train.lr_decay_steps", "6", "--init.zero_residual", "true"]
    flags += ["--model.ngram_rows", "500", "--model.ngram_length", "3", "--model.exportable", "false"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run_tiny(text, whole, *flags) == 0
    assert run_tiny(text, cut, *flags, "--train.max_steps", "4") == 0
    assert run_tiny(text, cut, *flags) == 0
    newest = [list_checkpoints(run)[-1] for run in (whole, cut)]
    assert weights_of(newest[0]) == weights_of(newest[1])


def test_records_after_the_last_checkpoint_are_not_doubled(tmp_path: Path, text: Path) -> None:
    run = tmp_path / "run"
    assert run_tiny(text, run, "--train.max_steps", "4", "--train.lr_decay_steps", "6") == 0
    with open(run / "metrics.jsonl", "a", encoding="utf-8") as file:  # as a killed process leaves it
        file.write(json.dumps({"kind": "train", "step": 5, "loss": 9.0}) + "\n" + '{"kind": "tr')
    assert run_tiny(text, run, "--train.lr_decay_steps", "6") == 0
    steps = [r["step"] for r in read_steps(run / "metrics.jsonl") if r["kind"] == "train"]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_finished_run_is_left_alone(tmp_path: Path, text: Path) -> None:
    run = tmp_path / "run"
    assert run_tiny(text, run) == 0
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file() and p.name != "recipe.yaml"}
    assert run_tiny(text, run) == 0
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file() and p.name != "recipe.yaml"} == before


def test_keep_last_and_keep_best(tmp_path: Path, text: Path) -> None:
    run = tmp_path / "run"
    flags = ["--train.save_interval", "1", "--eval.interval", "1", "--checkpoint.keep_last", "1"]
    assert run_tiny(text, run, *flags) == 0
    losses = {r["step"]: r["val_loss"] for r in read_steps(run / "metrics.jsonl") if r["kind"] == "eval" and r["step"]}
    best = min(losses, key=losses.__getitem__)
    assert {c.name for c in list_checkpoints(run)} == {f"step-{s:08d}" for s in (best, 6)}


def test_other_settings_are_refused_with_key_values_and_remedy(tmp_path: Path, text: Path) -> None:
    run = tmp_path / "run"
    assert run_tiny(text, run) == 0
    before = weights_of(list_checkpoints(run)[-1])
    with pytest.raises(FangcunError, match=r"optimizer\.lr is .* 0\.5 now.*--out NEW"):
        run_tiny(text, run, "--optimizer.lr", "0.5")
    with pytest.raises(FangcunError, match=r"seed is 42 .* 43 now"):
        run_tiny(text, run, "--seed", "43")
    with pytest.raises(FangcunError, match="--out NEW"):
        run_tiny(write_story(tmp_path, seed=9), run)
    assert weights_of(list_checkpoints(run)[-1]) == before


def test_stop_conditions_batches_and_logs_may_change(tmp_path: Path, text: Path) -> None:
    run = tmp_path / "run"
    assert run_tiny(text, run, "--train.max_steps", "2") == 0
    flags = [
        "--train.max_steps",
        "20",
        "--train.micro_batch_size",
        "1",
        "--eval.interval",
        "7",
        "--train.save_interval",
        "3",
    ]
    asked = load_recipe("demo", tiny_flags(*flags, "--train.max_norm", "1.0"))
    recipe, warnings = continue_with(list_checkpoints(run)[-1], asked.recipe, asked.origins)
    assert len(warnings) == 1
    assert "schedule is recomputed" in warnings[0]
    assert recipe.train.micro_batch_size == 1


def test_what_nobody_wrote_is_taken_over_and_a_written_null_is_a_difference(tmp_path: Path, text: Path) -> None:
    run = tmp_path / "run"
    own = ["--train.max_seq_length", "16", "--train.lr_decay_steps", "50"]
    assert run_tiny(text, run, *own, "--train.max_steps", "2") == 0
    newest = list_checkpoints(run)[-1]
    asked = load_recipe("demo", tiny_flags("--train.max_steps", "4"))
    recipe, _ = continue_with(newest, asked.recipe, asked.origins)
    assert (recipe.train.max_seq_length, recipe.train.lr_decay_steps) == (16, 50)
    with pytest.raises(FangcunError, match=r"train\.max_norm is 1\.0 there and None now"):
        run_tiny(text, run, *own, "--train.max_norm", "null")


def test_editing_the_runs_recipe_is_noticed(tmp_path: Path, text: Path) -> None:
    run = tmp_path / "run"
    assert run_tiny(text, run, "--train.max_steps", "2") == 0
    file = run / "recipe.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("seed: 42", "seed: 7"), encoding="utf-8")
    with pytest.raises(FangcunError, match="seed is 42 there and 7 now"):
        pipeline.run(load_recipe(file, ["--out", str(run), "--train.max_steps", "4"]))


def test_other_tokens_are_refused(tmp_path: Path, text: Path) -> None:
    runs = [tmp_path / "a", tmp_path / "b"]
    for seed, run in enumerate(runs):
        assert run_tiny(write_story(tmp_path, seed=seed), run, "--train.max_steps", "2") == 0
    shutil.rmtree(runs[0] / "tokens")
    shutil.copytree(runs[1] / "tokens", runs[0] / "tokens")
    with pytest.raises(FangcunError, match=r"--out NEW|other tokens|another tokenizer"):
        run_tiny(write_story(tmp_path, seed=0), runs[0], "--train.max_steps", "4")
    with pytest.raises(FangcunError, match="other tokens"):
        check_tokens(list_checkpoints(runs[0])[-1], "another fingerprint")


def test_a_run_from_pretrained_weights_resumes(tmp_path: Path, text: Path) -> None:
    start, run = tmp_path / "start", tmp_path / "run"
    assert run_tiny(text, start, "--train.max_steps", "2") == 0
    flags = ["--init_from", str(list_checkpoints(start)[-1])]
    file = tmp_path / "tune.yaml"
    file.write_text(
        "train: {global_batch_size: 4, micro_batch_size: 4, max_steps: 2, lr_decay_steps: 4, lr_warmup_steps: 0}\n"
    )
    for steps in ("2", "4"):
        loaded = load_recipe(
            file,
            [
                *flags,
                "--text",
                str(text),
                "--out",
                str(run),
                "--train.max_steps",
                steps,
                "--samples.max_new_tokens",
                "0",
            ],
        )
        assert pipeline.run(loaded) == 0
    assert list_checkpoints(run)[-1].name == "step-00000004"


def test_a_checkpoint_cut_short_of_its_evaluation_is_replaced_by_the_settled_one(tmp_path: Path, text: Path) -> None:
    run = tmp_path / "run"
    assert run_tiny(text, run, "--train.max_steps", "3") == 0
    newest = list_checkpoints(run)[-1]
    progress = read_progress(newest)
    file = newest / "training_state" / "progress.json"
    old = progress.__dict__ | {"settled": False, "finished": False, "val_loss": None, "best_val_loss": None}
    size = file.stat().st_size
    text_of = json.dumps(old, indent=1)
    file.write_text(text_of + " " * (size - len(text_of)), encoding="utf-8")  # as a signal leaves it
    assert run_tiny(text, run, "--train.max_steps", "3") == 0
    assert read_progress(newest).settled
    assert read_progress(newest).val_loss == progress.val_loss


def test_resume_asks_for_what_must_be_there(tmp_path: Path, text: Path) -> None:
    with pytest.raises(FangcunError, match="has no checkpoint"):
        choose_checkpoint(tmp_path, True)
    assert choose_checkpoint(tmp_path, "auto") is choose_checkpoint(tmp_path, False) is None
    with pytest.raises(FangcunError, match="does not exist"):
        choose_checkpoint(tmp_path, str(tmp_path / "nowhere"))
    run = tmp_path / "run"
    assert run_tiny(text, run) == 0
    with pytest.raises(FangcunError, match="resume: false"):
        choose_checkpoint(run, False)
    assert choose_checkpoint(run, True) == list_checkpoints(run)[-1]
    with pytest.raises(FangcunError, match="older"):
        choose_checkpoint(run, str(list_checkpoints(run)[0]))


def test_a_run_that_began_from_another_runs_checkpoint_goes_on_with_the_same_command(
    tmp_path: Path, text: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert run_tiny(text, first, "--train.max_steps", "4", "--train.lr_decay_steps", "6") == 0
    early, end = list_checkpoints(first)
    flags = ["--train.lr_decay_steps", "6", "--resume", str(early)]
    for _ in range(2):  # the second time it finds itself done
        assert run_tiny(text, second, *flags) == 0
    assert run_tiny(text, first, "--train.lr_decay_steps", "6") == 0
    assert weights_of(list_checkpoints(second)[-1]) == weights_of(list_checkpoints(first)[-1])
    with pytest.raises(FangcunError, match="has reached the end"):
        run_tiny(
            text, tmp_path / "third", "--train.max_steps", "4", "--train.lr_decay_steps", "6", "--resume", str(end)
        )


def test_a_run_goes_on_when_its_text_is_gone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, own = tmp_path / "run", write_story(tmp_path)
    assert run_tiny(own, run, "--train.max_steps", "2", "--train.lr_decay_steps", "6") == 0
    own.unlink()
    assert run_tiny(own, run, "--train.max_steps", "4", "--train.lr_decay_steps", "6") == 0
    assert "is gone" in capsys.readouterr().err
    assert list_checkpoints(run)[-1].name == "step-00000004"


def test_a_damaged_newest_checkpoint_is_named_with_the_one_before(tmp_path: Path, text: Path) -> None:
    run = tmp_path / "run"
    assert run_tiny(text, run, "--train.max_steps", "4") == 0
    before, newest = list_checkpoints(run)[-2:]
    (newest / "model.safetensors").unlink()
    with pytest.raises(FangcunError, match=f"Move .*{newest.name} away to go on from {before.name}"):
        run_tiny(text, run, "--train.max_steps", "6")


def test_other_pretrained_weights_are_refused_on_resume(tmp_path: Path, text: Path) -> None:
    start, run = tmp_path / "start", tmp_path / "run"
    assert run_tiny(text, start, "--train.max_steps", "4") == 0
    file = tmp_path / "tune.yaml"
    file.write_text(
        "train: {global_batch_size: 4, micro_batch_size: 4, max_steps: 2, lr_warmup_steps: 0}\nsamples: {max_new_tokens: 0}\n"
    )

    def tune(origin: Path) -> int:
        flags = ["--init_from", str(origin), "--text", str(text), "--out", str(run)]
        return pipeline.run(load_recipe(file, flags))

    one, other = list_checkpoints(start)[-2:]
    assert tune(one) == 0
    with pytest.raises(FangcunError, match="init_from is"):
        tune(other)
