"""A corpus whose making was killed, anywhere, is gone on with and ends with the same bytes."""

from __future__ import annotations

import multiprocessing
import os
import random
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fangcun.config import CleanConfig, CorpusConfig, DedupConfig, FilterConfig, Rules, SourceConfig
from fangcun.corpus import build, build_corpus, finish, iter_split, process, work
from fangcun.corpus.dedup import spool
from fangcun.corpus.work import Work
from fangcun.errors import FangcunError

RULES = Rules(
    CleanConfig(boilerplate=["web"]),
    FilterConfig(min_characters=12),
    DedupConfig(near=True, paragraph_documents=3, paragraph_characters=8, held_out=True),
)


def texts(count: int = 160) -> list[str]:
    """Documents with copies, repeated paragraphs, empty ones and short ones among them."""
    draw = random.Random(3)
    words = [chr(0x4E00 + n) for n in range(900)]
    out: list[str] = []
    for number in range(count):
        body = "".join(draw.choices(words, k=draw.randint(40, 90)))
        kind = number % 8
        out.append(
            [body, body, f"{body}\n本站所有文章均来自网络转载", body, "", "短", f"{body}\n责任编辑：王五", body][kind]
            if number < 20 or kind != 7
            else out[draw.randrange(number)] + "尾"
        )
    return out


def sources(folder: Path) -> CorpusConfig:
    folder.mkdir()
    lines = [orjson.dumps({"text": text}) + b"\n" for text in texts()]
    for number in range(4):
        (folder / f"{number}.jsonl").write_bytes(b"".join(lines[number * 40 : number * 40 + 40]) + b"broken\n")
    halves = {name: SourceConfig([str(folder / f"[{name}].jsonl")]) for name in ("01", "23")}
    named = {"first": halves["01"], "second": halves["23"]}
    return CorpusConfig(sources=named, workers=1, max_broken_share=0.5, val_share=0.2)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_BATCH_DOCUMENTS", 7)
    monkeypatch.setattr(work, "PART_CHARACTERS", 1500)
    monkeypatch.setattr(spool, "BLOCK_DOCUMENTS", 16)
    sizes = {name: size // 4096 * 16 for name, size in spool._BLOCK_BYTES.items()}
    monkeypatch.setattr(spool, "_BLOCK_BYTES", sizes)


def die_at(module: object, name: str, call: int) -> None:
    """The process ends, as a killed one does, at the given call of a function."""
    whole: Callable = getattr(module, name)
    calls = iter(range(1, 10_000))

    def dying(*args: object, **named: object) -> object:
        if next(calls) == call:
            os._exit(9)
        return whole(*args, **named)

    setattr(module, name, dying)


def killed_build(config: CorpusConfig, out: Path, place: tuple[object, str, int]) -> int | None:
    def body() -> None:
        die_at(*place)
        build_corpus(config, out, RULES)

    process_ = multiprocessing.get_context("fork").Process(target=body)
    process_.start()
    process_.join()
    return process_.exitcode


PLACES = [
    *((Work, "add", call) for call in (1, 4, 9, 17, 23)),
    *((work, "write_text_atomic", call) for call in (1, 2, 5)),
    *((work, "sync_file", call) for call in (1, 4)),
    (Work, "finish", 1), (build, "decide", 1), (finish.Finisher, "finish", 30), (build, "check_split", 1),
    (build, "discard", 1),
]  # fmt: skip


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_anywhere_it_goes_on_and_ends_with_the_same_bytes(tmp_path: Path, small_parts: None) -> None:
    config = sources(tmp_path / "in")
    whole = build_corpus(config, tmp_path / "whole", RULES)
    assert whole.counts["dropped_documents"] > 20 and whole.counts["train"]["sources"]["second"]["documents"] > 10
    went_on = 0
    for number, place in enumerate(PLACES):
        out = tmp_path / f"corpus-{number}"
        assert killed_build(config, out, place) == 9, place
        said: list[str] = []
        again = build_corpus(config, out, RULES, tell=said.append)
        went_on += bool(said)
        assert content(out) == content(tmp_path / "whole"), place
        assert again.counts == whole.counts and again.settings == whole.settings
        assert not out.with_name(f"{out.name}.work").exists()
    assert went_on >= 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_again_and_again_it_ends_with_the_same_bytes(tmp_path: Path, small_parts: None) -> None:
    config = sources(tmp_path / "in")
    build_corpus(config, tmp_path / "whole", RULES)
    for _ in range(12):
        if killed_build(config, tmp_path / "corpus", (Work, "add", 7)) == 0:
            break
    assert content(tmp_path / "corpus") == content(tmp_path / "whole")


def test_what_waits_for_another_corpus_is_not_taken(tmp_path: Path, small_parts: None) -> None:
    config = sources(tmp_path / "in")
    if hasattr(os, "fork"):
        killed_build(config, tmp_path / "corpus", (Work, "add", 9))
        assert (tmp_path / "corpus.work" / "state.json").is_file()
    other = Rules(RULES.clean, FilterConfig(min_characters=30), RULES.dedup)
    said: list[str] = []
    build_corpus(config, tmp_path / "corpus", other, tell=said.append)
    build_corpus(config, tmp_path / "whole", other)
    assert all("begun anew" in line for line in said) and content(tmp_path / "corpus") == content(tmp_path / "whole")


def test_a_mistake_of_the_user_leaves_nothing_behind(tmp_path: Path) -> None:
    config = sources(tmp_path / "in")
    config.max_broken_share = 0.0
    with pytest.raises(FangcunError, match="broken"):
        build_corpus(config, tmp_path / "corpus", RULES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_neither_processes_nor_the_size_of_parts_change_a_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = sources(tmp_path / "in")
    build_corpus(config, tmp_path / "one", RULES)
    monkeypatch.setattr(process, "_BATCH_DOCUMENTS", 3)
    monkeypatch.setattr(work, "PART_CHARACTERS", 700)
    config.workers = 2
    build_corpus(config, tmp_path / "two", RULES)
    assert content(tmp_path / "one") == content(tmp_path / "two")


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(48)), st.integers(1, 5))
def test_which_documents_stay_depends_on_none_of_files_order_and_number(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], files: int
) -> None:
    found = []
    for places, number in ((list(range(48)), 1), (order, files)):
        folder = tmp_path_factory.mktemp("in")
        chosen = [texts()[place] for place in places]
        for part in range(number):
            lines = [orjson.dumps({"text": text}) + b"\n" for text in chosen[part::number]]
            (folder / f"{part}.jsonl").write_bytes(b"".join(lines))
        config = CorpusConfig(paths=[str(folder)], val_split="hash", val_share=0.2, workers=1)
        build_corpus(config, folder / "corpus", RULES)
        found.append(
            {split: sorted(d.text for d in iter_split(folder / "corpus", split)) for split in ("train", "val")}
        )
    assert found[0] == found[1] and found[0]["train"] and found[0]["val"]
