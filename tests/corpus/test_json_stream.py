"""JSON values come out one by one, whatever the layout, the block borders and the damage."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fangcun.corpus import json_stream
from fangcun.corpus.json_stream import stream_json
from fangcun.errors import FangcunError

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def read(text: str, block: int = 1) -> tuple[list[Any], list[tuple[int, str]]]:
    broken: list[tuple[int, str]] = []
    blocks = [text[i : i + block] for i in range(0, len(text), block)]
    values = [value for _, value in stream_json(blocks, "x.json", lambda line, why, *_: broken.append((line, why)))]
    return values, broken


@given(st.lists(_VALUES, max_size=6), st.integers(1, 30), st.sampled_from([None, 0, 2]), st.booleans())
def test_an_array_gives_back_its_values_for_any_block_border(
    values: list[Any], block: int, indent: int | None, ascii_only: bool
) -> None:
    assert read(json.dumps(values, indent=indent, ensure_ascii=ascii_only), block) == (values, [])


@given(
    st.lists(st.dictionaries(st.text(max_size=4), _VALUES, max_size=3), min_size=1, max_size=6),
    st.integers(1, 30),
    st.sampled_from(["", "\n", " ", ",\n"]),
)
def test_values_one_after_the_other_are_read_with_any_separator(values: list[Any], block: int, separator: str) -> None:
    assert read(separator.join(json.dumps(value) for value in values), block) == (values, [])


@pytest.mark.parametrize("layout", ["[\n{}\n]", "[{}]", "{}"])
@pytest.mark.parametrize("block", [1, 7, 10_000])
@pytest.mark.parametrize("damage", ['{"text": "no end", "n": }', '{"text" "x"}', '{"text": "a"b"}', '{"n": 01x}'])
def test_a_broken_value_costs_only_itself(layout: str, block: int, damage: str) -> None:
    good = [
        json.dumps({"text": f"第{i}回 {{}} [1]", "turns": [{"text": "inner"}]}, ensure_ascii=False) for i in range(8)
    ]
    records = [*good[:4], damage, *good[4:]]
    separator = "\n" if layout == "{}" else ",\n"
    values, broken = read(layout.replace("{}", separator.join(records)), block)
    assert values == [json.loads(record) for record in good]
    assert len(broken) == 1 and broken[0][0] == (6 if layout.startswith("[\n") else 5)


def test_a_broken_value_in_an_indented_file_does_not_let_inner_objects_through() -> None:
    text = json.dumps([{"id": i, "turns": [{"content": "inner"}, {"content": "inner"}]} for i in range(5)], indent=2)
    values, broken = read(text.replace('"id": 2,', '"id": 2;'), 13)
    assert [value["id"] for value in values] == [0, 1, 3, 4] and len(broken) == 1


def test_a_file_cut_short_is_reported() -> None:
    values, broken = read('[{"a": 1}, {"a": "abc')
    assert values == [{"a": 1}] and broken
    assert read('[{"a": 1}')[1][0][1].startswith("the array is not closed")


def test_a_value_too_large_for_a_document_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "MAX_RECORD_CHARACTERS", 1000)
    with pytest.raises(FangcunError, match=r"x\.json:1 .*JSON lines"):
        read('{"data": [' + '"text", ' * 1000, 50)


def test_nesting_without_end_is_broken_and_no_crash() -> None:
    values, broken = read("[" + "[" * 200_000, 100_000)
    assert values == [] and broken


def test_memory_does_not_grow_with_the_array(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    program = (
        "import resource, sys\n"
        "from fangcun.config.schema import CorpusConfig\n"
        "from fangcun.corpus import ReadReport, read_documents\n"
        "n = sum(1 for _ in read_documents(CorpusConfig(paths=[sys.argv[1]]), ReadReport()))\n"
        "print(n, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    peak = {}
    record = json.dumps({"instruction": "问", "input": "", "output": "合久必分" * 120}, ensure_ascii=False)
    for count in (400, 40_000):
        file = tmp_path / f"{count}.json"
        with open(file, "w", encoding="utf-8") as out:
            out.write("[" + record)
            for _ in range(count - 1):
                out.write("," + record)
            out.write("]")
        done = subprocess.run([sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=True)
        found, peak[count] = map(int, done.stdout.split())
        assert found == count
    assert (tmp_path / "40000.json").stat().st_size > 55_000_000
    # ru_maxrss counts KiB (bytes on macOS): 20 MB more at most for a hundred times the text.
    assert peak[40_000] - peak[400] < 20_000 * (1024 if sys.platform == "darwin" else 1)
