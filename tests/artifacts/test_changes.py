"""Why an artefact is made anew is said by setting and file."""

from __future__ import annotations

from fangcun.artifacts import Manifest, describe_changes


def entry(path: str, sha256: str) -> dict[str, object]:
    return {"path": path, "sha256": sha256}


MADE = Manifest(
    "corpus",
    settings={"encoding": "auto", "val_share": None, "val_share_used": 0.1, "filter": {"min_characters": 60}},
    inputs=[entry("a", "1"), entry("b", "2")],
    parents={"tokenizer": "t"},
)


def test_settings_are_named_with_both_values() -> None:
    now = {"encoding": "utf-8", "val_share": 0.2, "filter": {"min_characters": 50, "max_digits": 0.5}}
    assert describe_changes(MADE, now, MADE.inputs, {"tokenizer": "t"}) == (
        "encoding auto → utf-8; filter.max_digits (default) → 0.5; filter.min_characters 60 → 50; val_share null → 0.2"
    )


def test_a_section_that_is_gone_is_back_at_its_defaults() -> None:
    assert "filter.min_characters 60 → (default)" in describe_changes(
        MADE, {"encoding": "auto", "val_share": None}, MADE.inputs, {}
    )


def test_files_are_named_and_a_file_that_moved_is_no_change() -> None:
    same = {"encoding": "auto", "val_share": None, "filter": {"min_characters": 60}}
    inputs = [entry("moved", "1"), entry("b", "3"), entry("c", "4")]
    assert describe_changes(MADE, same, inputs, {}) == "new file c; b has other content"
    assert describe_changes(MADE, same, MADE.inputs[:1], {"tokenizer": "u"}) == "b is gone; the tokenizer changed"


def test_where_nothing_is_seen_the_rest_is_named() -> None:
    same = {"encoding": "auto", "val_share": None, "filter": {"min_characters": 60}}
    assert "rules of this version" in describe_changes(MADE, same, MADE.inputs, {"tokenizer": "t"})


def test_what_is_nested_is_named_by_its_whole_path_and_numbers_are_no_truth_values() -> None:
    made = Manifest("corpus", settings={"sources": {"web": {"weight": 0, "filter": {"min_characters": 60}}, "old": {}}})
    now = {"sources": {"web": {"weight": 1, "filter": {"min_characters": 50}}, "new": {"strict": True}}}
    assert describe_changes(made, now, [], {}) == (
        "sources.new.strict (default) → true; sources.web.filter.min_characters 60 → 50; sources.web.weight 0 → 1"
    )
