"""Fetching ahead changes when a batch is read, and nothing else."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import run_tiny, weights_of, write_story

from fangcun.artifacts import list_checkpoints
from fangcun.training.prefetch import Prefetch
from fangcun.training.trainer import Trainer

CPU = torch.device("cpu")


def numbered(first: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch that tells where it comes from."""
    inputs = torch.arange(first, first + count)
    return inputs, -inputs


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 3), st.none() | st.integers(0, 20)), max_size=12))
def test_any_sequence_of_positions_gives_what_a_direct_fetch_gives(asked: list[tuple[int, int, int | None]]) -> None:
    with contextlib.closing(Prefetch(numbered, CPU)) as prefetch:
        for first, count, then in asked:
            got = prefetch.get(first, count, then=then)
            assert [t.tolist() for t in got] == [t.tolist() for t in numbered(first, count)]


def test_the_next_batch_is_read_by_a_thread_before_it_is_asked_for_and_once() -> None:
    read: list[tuple[int, str]] = []
    second = threading.Event()

    def fetch(first: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        read.append((first, threading.current_thread().name))
        if first == 4:
            second.set()
        return numbered(first, count)

    with contextlib.closing(Prefetch(fetch, CPU)) as prefetch:
        prefetch.get(0, 4, then=4)
        assert second.wait(10)
        prefetch.get(4, 4)
    assert [first for first, _ in read] == [0, 4]
    assert all(name.startswith("prefetch") for _, name in read)


def test_an_error_is_raised_where_its_batch_is_asked_for_and_nowhere_else() -> None:
    def fetch(first: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        if first == 4:
            raise OSError("the disk is gone")
        return numbered(first, count)

    with contextlib.closing(Prefetch(fetch, CPU)) as prefetch:
        prefetch.get(0, 4, then=4)
        with pytest.raises(OSError, match="the disk is gone"):
            prefetch.get(4, 4, then=8)
        prefetch.get(0, 4, then=4)
        assert prefetch.get(8, 4)[0].tolist() == [8, 9, 10, 11]  # the bad one was dropped unasked


def test_training_is_bitwise_that_without_it_and_leaves_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = write_story(tmp_path)
    runs = [tmp_path / "ahead", tmp_path / "direct"]
    assert run_tiny(text, runs[0]) == 0
    assert not [t for t in threading.enumerate() if t.name.startswith("prefetch")]

    def direct(trainer: Trainer) -> tuple[torch.Tensor, torch.Tensor]:
        return trainer.batches.fetch(trainer.progress.samples, trainer.recipe.train.global_batch_size)

    monkeypatch.setattr(Trainer, "_fetch", direct)
    assert run_tiny(text, runs[1]) == 0
    ends = [list_checkpoints(run)[-1] for run in runs]
    assert ends[0].name == ends[1].name
    assert weights_of(ends[0]) == weights_of(ends[1])
