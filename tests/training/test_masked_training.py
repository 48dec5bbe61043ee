"""train.document_mask: training and evaluation read each document alone, and a run keeps to what it began with."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import run_tiny, tiny_flags, weights_of, write_story

from fangcun.artifacts import list_checkpoints
from fangcun.config import load_recipe
from fangcun.errors import FangcunError
from fangcun.evaluation import evaluate_windows
from fangcun.model import load_model
from fangcun.tokens import Window, fixed_windows, open_split
from fangcun.training import read_steps
from fangcun.training.resume import continue_with

MASKED = ["--train.document_mask", "true", "--corpus.txt_split", "separator", "--corpus.separator", "\n"]


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A text of short documents, a line each, and a run of 6 steps on it."""
    folder = tmp_path_factory.mktemp("masked")
    text = write_story(folder)
    assert run_tiny(text, folder / "run", *MASKED, "--train.lr_decay_steps", "6") == 0
    return text, folder / "run"


def test_evaluation_is_that_of_each_document_alone(masked: tuple[Path, Path]) -> None:
    _, run = masked
    model, split = load_model(list_checkpoints(run)[-1]), open_split(run / "tokens", "val")
    windows = fixed_windows(split, 32, 4)
    nats, n_targets = 0.0, 0
    for window in windows:
        ids = split.read(window.start, window.stop)
        begins = [0, *(np.flatnonzero(ids == split.eos_id) + 1).tolist(), len(ids)]
        for begin, end in itertools.pairwise(begins):
            for place in range(begin, min(end, len(ids) - 1)):
                if window.first_target <= window.start + place + 1 <= window.last_target:
                    with torch.no_grad():
                        logits = model(torch.from_numpy(ids[None, begin : place + 1]))[0, -1]
                    nats -= float(logits.double().log_softmax(-1)[ids[place + 1]])
                    n_targets += 1

    def measured(document_mask: bool, some: list[Window]) -> float:
        return evaluate_windows(model, split, some, batch_size=3, token_bytes=None, document_mask=document_mask).loss

    assert measured(True, windows) == pytest.approx(nats / n_targets, rel=1e-5)
    assert measured(False, windows) != pytest.approx(nats / n_targets, rel=1e-5)
    final = [r for r in read_steps(run / "metrics.jsonl") if r["kind"] == "final"][-1]
    assert final["val_loss"] == pytest.approx(measured(True, fixed_windows(split, 32)), rel=1e-5)
    assert math.isfinite(
        [r for r in read_steps(run / "metrics.jsonl") if r["kind"] == "eval"][-1]["attention_logit_max"]
    )


def test_it_changes_training_and_resumes_bitwise(masked: tuple[Path, Path], tmp_path: Path) -> None:
    text, run = masked
    flags = [*MASKED, "--train.lr_decay_steps", "6"]
    assert run_tiny(text, tmp_path / "cut", *flags, "--train.max_steps", "4") == 0
    assert run_tiny(text, tmp_path / "cut", *flags) == 0
    assert run_tiny(text, tmp_path / "plain", *flags, "--train.document_mask", "false") == 0
    ends = [weights_of(list_checkpoints(folder)[-1]) for folder in (run, tmp_path / "cut", tmp_path / "plain")]
    assert ends[0] == ends[1]
    assert ends[0] != ends[2]


def test_a_run_cannot_change_it_on_the_way(masked: tuple[Path, Path]) -> None:
    text, run = masked
    flags = tiny_flags("--text", str(text), "--out", str(run), *MASKED, "--train.document_mask", "false")
    loaded = load_recipe("demo", flags)
    with pytest.raises(FangcunError, match=r"train\.document_mask is True there and False now"):
        continue_with(list_checkpoints(run)[-1], loaded.recipe, {})
