"""Bad steps move no weight; many in a row take the run back to its last good checkpoint and past their samples."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import run_tiny

from fangcun.artifacts import list_checkpoints
from fangcun.config import GuardConfig
from fangcun.model import load_model
from fangcun.training import read_steps
from fangcun.training import step as step_module
from fangcun.training.guard import Guard


def steady(guard: Guard, steps: int = 40) -> None:
    for i in range(steps):
        assert guard.approve(3.0 + 0.05 * math.sin(i), 0.5 * math.exp(0.2 * math.cos(i)))


def test_what_is_not_finite_is_never_applied() -> None:
    guard = Guard(GuardConfig(sigmas=None))
    assert not guard.approve(math.nan, 1.0)
    assert not guard.approve(1.0, math.inf)
    assert guard.approve(1.0, math.inf, norm_may_overflow=True)
    assert guard.skipped == 2


def test_a_spike_is_skipped_and_leaves_no_trace_in_the_window() -> None:
    guard = Guard(GuardConfig(sigmas=6.0))
    steady(guard)
    before = guard.state()["losses"].copy()
    assert not guard.approve(9.0, 0.5)
    assert "loss 9" in guard.reason
    assert not guard.approve(3.0, 50.0)
    assert "gradient norm 50" in guard.reason
    assert guard.state()["losses"] == before
    assert guard.approve(3.0, 0.5)
    assert guard.bad_in_a_row == 0


def test_nothing_is_a_spike_before_there_is_a_past() -> None:
    guard = Guard(GuardConfig(sigmas=1.0))
    assert guard.approve(10.0, 1.0)
    assert guard.approve(1e6, 1e9)


@given(st.lists(st.floats(0.5, 2.0), min_size=0, max_size=60), st.floats(0, 100), st.floats(0, 1e6))
def test_a_restored_guard_decides_as_the_one_that_was_never_stopped(factors, loss: float, norm: float) -> None:
    whole = Guard(GuardConfig(sigmas=3.0, window_steps=30))
    for factor in factors:
        whole.approve(2.0 * factor, 0.3 * factor)
    resumed = Guard(GuardConfig(sigmas=3.0, window_steps=30))
    resumed.restore(json.loads(json.dumps(whole.state())))
    assert resumed.approve(loss, norm) == whole.approve(loss, norm)
    assert resumed.state() == whole.state()


def poisoned(monkeypatch: pytest.MonkeyPatch, *, samples: range) -> None:
    """Loss of batches that hold any of these samples is NaN, as a broken document would make it."""
    from fangcun.training.trainer import Trainer

    fetch, seen = Trainer._fetch, {}

    def marked(self):
        seen["bad"] = any(n in samples for n in range(self.progress.samples, self.progress.samples + 4))
        return fetch(self)

    real = step_module.get_total_norm
    monkeypatch.setattr(Trainer, "_fetch", marked)
    monkeypatch.setattr(
        step_module, "get_total_norm", lambda grads: torch.tensor(math.nan) if seen["bad"] else real(grads)
    )


def test_one_bad_batch_is_skipped_and_logged(tmp_path: Path, text: Path, monkeypatch) -> None:
    poisoned(monkeypatch, samples=range(8, 12))  # the third step
    run = tmp_path / "run"
    assert run_tiny(text, run, "--train.save_interval", "1", "--checkpoint.keep_last", "9") == 0
    skipped = [r for r in read_steps(run / "metrics.jsonl") if r["kind"] == "skip"]
    assert [r["step"] for r in skipped] == [3]
    assert "gradient norm is nan" in skipped[0]["reason"]
    two, four = (load_model(run / "checkpoints" / f"step-{n:08}").state_dict() for n in (2, 4))
    assert not (run / "checkpoints" / "step-00000003").exists()  # nothing is saved in the midst of trouble
    assert any(not torch.equal(two[name], four[name]) for name in two)
    assert list_checkpoints(run)[-1].name == "step-00000006"


def test_many_bad_batches_take_the_run_back_and_past_them(tmp_path: Path, text: Path, monkeypatch) -> None:
    poisoned(monkeypatch, samples=range(16, 28))  # steps 5, 6 and 7
    run = tmp_path / "run"
    flags = ["--guard.rollback_after_steps", "3", "--train.max_steps", "10", "--train.save_interval", "2"]
    assert run_tiny(text, run, *flags) == 0
    records = read_steps(run / "metrics.jsonl")
    back = [r for r in records if r["kind"] == "rollback"]
    assert [(r["from_step"], r["step"], r["samples"]) for r in back] == [(7, 4, 28)]
    assert [r["step"] for r in records if r["kind"] == "train"] == list(range(1, 11))
    progress = json.loads((list_checkpoints(run)[-1] / "training_state" / "progress.json").read_text(encoding="utf-8"))
    assert progress["step"] == 10
    assert progress["samples"] == 28 + 6 * 4  # on from behind the bad ones
    assert progress["guard"]["rollbacks"] == 1
