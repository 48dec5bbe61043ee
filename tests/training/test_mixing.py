"""Mixtures in training: shares as asked, limits on repetition, changes in mid-run that resume exactly."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import story, tiny_flags

from fangcun.artifacts import list_checkpoints, read_manifest
from fangcun.config import MixConfig, load_recipe
from fangcun.console import Console
from fangcun.errors import ConfigError, FangcunError
from fangcun.pipeline import run
from fangcun.tokens import MixedOrder, Phase, quotas
from fangcun.training import read_steps
from fangcun.training.mixing import Mixture, plan_phases, read_mixture

RECIPE = """
corpus:
  sources:
    books: {{paths: [{0}/books.txt]}}
    web: {{paths: [{0}/web.txt]}}
train: {{max_steps: 6}}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "books.txt").write_text(story(0, 150), encoding="utf-8")
    (tmp_path / "web.txt").write_text(story(1, 300), encoding="utf-8")
    (tmp_path / "my.yaml").write_text(RECIPE.format(tmp_path), encoding="utf-8")
    return tmp_path / "my.yaml"


def go(recipe: Path, out: Path, *flags: str) -> int:
    loaded = load_recipe(recipe, tiny_flags("--out", str(out), *flags))
    return run(loaded, console=Console(open(os.devnull, "w", encoding="utf-8")))


def losses(out: Path) -> list[tuple[int, float]]:
    return [(r["step"], r["loss"]) for r in read_steps(out / "metrics.jsonl") if r["kind"] == "train"]


def mixture_of(out: Path) -> dict:
    return read_manifest(list_checkpoints(out)[-1], "checkpoint").settings["mixture"]


def test_a_mixed_run_resumes_bitwise(recipe: Path, tmp_path: Path) -> None:
    mix = ["--mix.weights", "books=1", "web=3", "--mix.changes", "4:books=1,web=0"]
    assert go(recipe, tmp_path / "whole", *mix) == 0
    assert go(recipe, tmp_path / "parts", *mix, "--train.max_steps", "3", "--train.lr_decay_steps", "6") == 0
    assert go(recipe, tmp_path / "parts", *mix, "--train.lr_decay_steps", "6") == 0
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
    final = [r for r in read_steps(tmp_path / "whole" / "metrics.jsonl") if r["kind"] == "final"][-1]
    assert {name for name in final if name.endswith("bits_per_byte")} == {
        "val_bits_per_byte", "val_books_bits_per_byte", "val_web_bits_per_byte",
    }  # fmt: skip
    assert mixture_of(tmp_path / "whole")["phases"] == [[0, [16384, 49152]], [16, [65536, 0]]]


def test_a_mixture_left_open_goes_on_as_it_was(recipe: Path, tmp_path: Path) -> None:
    mix = ["--mix.epochs", "books=2", "web=0.5", "--mix.changes", "5:books=1,web=1"]
    assert go(recipe, tmp_path / "run", *mix, "--train.max_steps", "4") == 0
    before = mixture_of(tmp_path / "run")
    assert go(recipe, tmp_path / "run", "--train.max_steps", "6") == 0
    assert mixture_of(tmp_path / "run")["phases"] == before["phases"]
    assert load_recipe(tmp_path / "run" / "recipe.yaml").recipe.mix.changes == {5: {"books": 1, "web": 1}}


def test_a_mixture_changed_in_mid_run_counts_from_there(recipe: Path, tmp_path: Path) -> None:
    first = ["--mix.weights", "books=1", "web=1"]
    assert go(recipe, tmp_path / "run", *first, "--train.max_steps", "4", "--train.lr_schedule", "constant") == 0
    again = ["--mix.weights", "books=0", "web=1", "--train.lr_schedule", "constant"]
    assert go(recipe, tmp_path / "run", *again, "--train.max_steps", "5") == 0
    assert mixture_of(tmp_path / "run")["phases"] == [[0, [32768, 32768]], [16, [0, 65536]]]
    assert go(recipe, tmp_path / "run", *again, "--train.max_steps", "6") == 0
    assert mixture_of(tmp_path / "run")["phases"] == [[0, [32768, 32768]], [16, [0, 65536]]]


def test_what_a_mixture_cannot_be_is_said(recipe: Path, tmp_path: Path) -> None:
    assert go(recipe, tmp_path / "plain", "--train.max_steps", "2") == 0
    with pytest.raises(FangcunError, match=r"began with no mixture and is asked to go on with one.*init_from"):
        go(recipe, tmp_path / "plain", "--mix.weights", "books=1", "web=1")
    text = tmp_path / "books.txt"
    (tmp_path / "one.yaml").write_text(f"corpus: {{paths: [{text}]}}\ntrain: {{max_steps: 3}}\n", encoding="utf-8")
    assert go(tmp_path / "one.yaml", tmp_path / "one") == 0
    tokens = ["--tokens.path", str(tmp_path / "one"), "--mix.weights", "books=1"]
    with pytest.raises(ConfigError, match=r"mix.weights: .*tokens holds no named sources"):
        go(tmp_path / "one.yaml", tmp_path / "other", *tokens)
    mixed = ["--tokens.path", str(tmp_path / "plain"), "--mix.weights", "bokos=1", "web=2"]
    with pytest.raises(ConfigError, match=r"no source 'bokos'. Did you mean 'books'"):
        go(tmp_path / "one.yaml", tmp_path / "other", *mixed)


def mixture(shares: tuple[float, ...], max_epochs: float | None = None, changes: tuple = ()) -> Mixture:
    return Mixture(("a", "b", "c"), (1000, 10_000, 100_000), shares, 111_000, max_epochs, changes)


def planned(asked: Mixture, last_step: int | None = 1000, past: tuple[Phase, ...] = (), start: int = 0) -> list[Phase]:
    return plan_phases(asked, block_size=10, global_batch_size=10, last_step=last_step, past=past, from_sample=start)


def test_no_source_goes_beyond_the_limit_and_the_others_take_over_by_their_weights() -> None:
    (phase,) = planned(mixture((1, 1, 1), max_epochs=4))  # 10,000 samples: 400 of a, 4,000 of b at most
    read = phase.counts(10_000)
    assert abs(read[0] - 400) <= 2 and abs(read[1] - 4000) <= 2 and read.sum() == 10_000
    (phase,) = planned(mixture((1, 1, 8), max_epochs=4))
    read = phase.counts(10_000)
    assert abs(read[0] - 400) <= 2 and abs(read[1] / read[2] - 1 / 8) < 0.001
    with pytest.raises(FangcunError, match=r"at 0.5 passes over each source there are 55,500 tokens"):
        planned(mixture((1, 1, 1), max_epochs=0.5))
    with pytest.raises(ConfigError, match="how long the run is"):
        planned(mixture((1, 1, 1), max_epochs=2), last_step=None)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(200, 10**6), min_size=1, max_size=5),
    st.lists(st.sampled_from([0.0, 1, 2, 0.001]), min_size=5, max_size=5),
    st.integers(1, 70),
    st.floats(0.2, 5),
    st.integers(0, 400),
)
def test_as_many_epochs_as_the_limit_allows_are_planned_and_no_source_goes_beyond(
    sizes: list[int], shares: list[float], batch: int, epochs: float, change: int
) -> None:
    names = tuple("abcde"[: len(sizes)])
    asked = Mixture(names, tuple(sizes), (1.0,) * len(sizes), sum(sizes), epochs, ())
    last = math.ceil(math.ceil(epochs * sum(sizes) / 10) / batch)
    if any(shares[: len(sizes)]) and 0 < change < last:
        asked = dataclasses.replace(asked, changes=((change, (1.0,) * len(sizes)),), shares=tuple(shares[: len(sizes)]))
    try:
        phases = plan_phases(asked, block_size=10, global_batch_size=batch, last_step=last)
    except FangcunError as error:  # what was left out before the change may be too much to make up for
        assert asked.changes and "mix.max_epochs" in str(error)
        return
    ends = [*(phase.first_sample for phase in phases), last * batch][1:]
    read = sum(phase.counts(end - phase.first_sample) for phase, end in zip(phases, ends, strict=True))
    assert read.sum() == last * batch
    over = read - epochs * np.array(sizes) / 10
    assert over.max() <= (batch + len(sizes)) * 1.0 + last * batch / 65536 * len(sizes) + len(phases)


def test_sources_without_text_and_other_numbers_that_say_nothing_are_named() -> None:
    class Split:
        sources: ClassVar = {"a": (0, 90), "b": (90, 90)}
        folder = Path("tokens")

    with pytest.raises(ConfigError, match="the sources that it reads hold no training text"):
        read_mixture(MixConfig(epochs={"a": 0, "b": 1}), Split())  # type: ignore[arg-type]
    huge = read_mixture(MixConfig(weights={"a": 1e308, "b": 1e308}), Split())  # type: ignore[arg-type]
    assert huge is not None and quotas(huge.shares, huge.names) == (32768, 32768)


def test_the_limit_counts_what_earlier_phases_read() -> None:
    asked = mixture((1, 0, 1), max_epochs=4, changes=((20, (1, 1, 1)),))
    phases = planned(asked)
    assert [phase.first_sample for phase in phases] == [0, 200]
    read = phases[0].counts(200) + phases[1].counts(9800)
    assert abs(read[0] - 400) <= 3
    longer = planned(asked, last_step=1100, past=tuple(phases), start=500)
    assert longer[:2] == phases and longer[2].first_sample == 500


def test_the_order_of_a_plan_is_the_same_before_a_change_of_it() -> None:
    asked = mixture((1, 2, 3), changes=((30, (3, 2, 1)), (60, (0, 0, 1))))
    sources = {"a": (0, 1001), "b": (1001, 11_002), "c": (11_002, 111_003)}
    whole = MixedOrder(sources, 10, 1, planned(asked))
    other = dataclasses.replace(asked, changes=((30, (3, 2, 1)), (50, (1, 0, 0))))
    changed = MixedOrder(sources, 10, 1, planned(other, past=tuple(planned(asked)), start=450))
    assert np.array_equal(np.stack(whole.windows(0, 450)), np.stack(changed.windows(0, 450)))
    assert changed.counts(10_000)[0] > 9000
