"""Stop strings: nothing of them is shown, however the text is cut into pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fangcun.errors import FangcunError
from fangcun.generation.stopping import StopStrings, check_stop


def cut_at_first_stop(text: str, stop: list[str]) -> str:
    """Reference: walk over the text character by character and look back."""
    for end in range(1, len(text) + 1):
        starts = [end - len(s) for s in stop if text[:end].endswith(s)]
        if starts:
            return text[: min(starts)]
    return text


@given(
    pieces=st.lists(st.text(alphabet="ab甲", max_size=4), max_size=8),
    stop=st.lists(st.text(alphabet="ab甲", min_size=1, max_size=4), max_size=3),
)
def test_streamed_text_is_the_text_before_the_first_stop_string(pieces: list[str], stop: list[str]) -> None:
    stream = StopStrings(stop)
    shown = "".join(stream.push(piece) for piece in pieces) + stream.flush()
    assert shown == cut_at_first_stop("".join(pieces), stop)
    assert stream.stopped == any(s in "".join(pieces) for s in stop)


@given(
    pieces=st.lists(st.text(alphabet="ab甲", max_size=4), max_size=8),
    stop=st.lists(st.text(alphabet="ab甲", min_size=1, max_size=4), max_size=3),
)
def test_nothing_shown_is_ever_taken_back(pieces: list[str], stop: list[str]) -> None:
    stream, shown = StopStrings(stop), ""
    final = cut_at_first_stop("".join(pieces), stop)
    for piece in pieces:
        shown += stream.push(piece)
        assert final.startswith(shown)


def test_text_without_stop_strings_is_never_held_back() -> None:
    stream = StopStrings()
    assert [stream.push(p) for p in ("却", "说", "")] == ["却", "说", ""]


def test_text_that_cannot_become_a_stop_string_is_shown_at_once() -> None:
    stream = StopStrings(["\n\n"])
    assert stream.push("甲\n") == "甲"
    assert stream.push("乙") == "\n乙"


def test_one_string_stands_for_itself() -> None:
    assert check_stop("abc") == ("abc",)
    assert check_stop(None) == ()


@pytest.mark.parametrize("stop", [[""], "", [3], ["a", None]])
def test_a_stop_that_is_no_text_is_refused_by_name(stop: object) -> None:
    with pytest.raises(FangcunError, match="stop"):
        check_stop(stop)  # type: ignore[arg-type]
