"""What a stage will take is told from what it took, in proportion to its input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fangcun.artifacts import TIMINGS, Timings, Work


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def work(n_bytes: int | None = 1000, kind: str = "read") -> Work:
    return Work("corpus", kind, n_bytes)


def made(folder: Path, seconds: float, n_bytes: int = 1000) -> Timings:
    clock = Clock()
    timings = Timings(folder, clock=clock)
    with timings.measure(work(n_bytes), "f", lambda done, total: None):
        clock.now += seconds
    return timings


def test_the_same_again_takes_as_long_as_last_time(tmp_path: Path) -> None:
    cost = made(tmp_path, 1440).estimate(work(), "g")
    assert cost is not None and (cost.seconds, cost.last_seconds) == (1440, 1440)


@given(seconds=st.floats(6, 1e6), n_bytes=st.integers(1, 10**12), factor=st.integers(2, 1000))
def test_more_text_costs_more_but_never_more_than_in_proportion(seconds: float, n_bytes: int, factor: int) -> None:
    from fangcun.artifacts.timings import _scaled

    more, less = _scaled(seconds, n_bytes, n_bytes * factor), _scaled(seconds, n_bytes, n_bytes / factor)
    assert more is not None and less is not None
    assert seconds < more <= seconds * factor * 1.000001
    assert seconds / factor * 0.999999 <= less < seconds


def test_what_the_start_alone_took_says_nothing_of_much_more_text(tmp_path: Path) -> None:
    timings = made(tmp_path, 3)
    assert timings.estimate(work(10**9), "g") is None
    for n_bytes, seconds in ((500, 3), (5000, 15)):
        cost = timings.estimate(work(n_bytes), "g")
        assert cost is not None and cost.seconds == seconds


@pytest.mark.parametrize(
    "asked", [work(None), work(kind="copy"), Work("tokens", "read", 1000)], ids=["bytes", "kind", "stage"]
)
def test_other_work_is_not_known(tmp_path: Path, asked: Work) -> None:
    assert made(tmp_path, 50).estimate(asked, "g") is None


@pytest.mark.parametrize(
    "content",
    [None, "", "[]", "{", '{"corpus": 7}', '{"corpus": {"seconds": "7", "input_bytes": 1000, "kind": "read"}}',
     '{"corpus": {"seconds": NaN, "input_bytes": 1000, "kind": "read"}}', '{"corpus": {"seconds": -1, "input_bytes": 1, "kind": "read"}}'],
)  # fmt: skip
def test_a_file_that_says_nothing_is_as_if_it_were_not_there(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / TIMINGS).write_text(content, encoding="utf-8")
    assert Timings(tmp_path).estimate(work(), "g") is None
    assert made(tmp_path, 50).estimate(work(), "g") is not None


def test_stages_do_not_forget_one_another(tmp_path: Path) -> None:
    timings = made(tmp_path, 50)
    with timings.measure(Work("tokens", "pack", 9), "f", lambda done, total: None):
        pass
    assert set(json.loads((tmp_path / TIMINGS).read_text(encoding="utf-8"))) == {"corpus", "tokens"}
    assert timings.estimate(work(), "g") is not None


def interrupted(folder: Path, seconds: float, fingerprint: str) -> None:
    clock = Clock()
    with (
        pytest.raises(KeyboardInterrupt),
        Timings(folder, clock=clock).measure(work(), fingerprint, lambda done, total: None),
    ):
        clock.now += seconds
        raise KeyboardInterrupt


def test_a_stage_that_goes_on_where_it_was_costs_the_rest_and_is_remembered_whole(tmp_path: Path) -> None:
    made(tmp_path, 1000)
    (tmp_path / "corpus.work").mkdir()
    interrupted(tmp_path, 600, "g")
    interrupted(tmp_path, 100, "g")
    clock = Clock()
    timings = Timings(tmp_path, clock=clock)
    cost = timings.estimate(work(), "g")
    assert cost is not None and (cost.seconds, cost.last_seconds) == (300, 1000)
    other = timings.estimate(work(), "h")
    assert other is not None and other.seconds == 1000
    with timings.measure(work(), "g", lambda done, total: None):
        clock.now += 350
    again = timings.estimate(work(), "g")
    assert again is not None and (again.seconds, again.last_seconds) == (1050, 1050)


def test_a_stage_that_begins_again_counts_only_its_last_attempt(tmp_path: Path) -> None:
    interrupted(tmp_path, 600, "f")
    cost = made(tmp_path, 1000).estimate(work(), "f")
    assert cost is not None and cost.last_seconds == 1000


def test_a_killed_stage_is_noted_on_the_way_and_progress_is_handed_on(tmp_path: Path) -> None:
    clock, seen = Clock(), []
    with Timings(tmp_path, clock=clock).measure(work(), "f", lambda done, total: seen.append((done, total))) as line:
        for done in range(5):
            clock.now += 20
            line(done, 5)
        unfinished = json.loads((tmp_path / TIMINGS).read_text(encoding="utf-8"))["corpus"]["unfinished"]
        assert unfinished == {"fingerprint": "f", "seconds": 80}
    assert seen == [(done, 5) for done in range(5)]
    assert "unfinished" not in json.loads((tmp_path / TIMINGS).read_text(encoding="utf-8"))["corpus"]
