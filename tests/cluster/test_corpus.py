"""A corpus made by tasks has the bytes of one made by a single process, however it is cut."""

from __future__ import annotations

import gzip
import json
import os
import random
from pathlib import Path

import orjson
import pytest
import zstandard

from fangcun.cluster import corpus as cluster_corpus
from fangcun.cluster.corpus import Plan, build_corpus_by_tasks
from fangcun.cluster.parts import cut
from fangcun.config import CleanConfig, CorpusConfig, DedupConfig, FilterConfig, Rules, SourceConfig
from fangcun.config.cluster import ClusterConfig
from fangcun.corpus import build_corpus as build_alone
from fangcun.corpus import corpus_fingerprint, streams, work
from fangcun.corpus.build import work_folder
from fangcun.corpus.dedup import spool
from fangcun.corpus.sources import corpus_sources
from fangcun.errors import FangcunError

RULES = Rules(
    CleanConfig(boilerplate=["web"]),
    FilterConfig(min_characters=12),
    DedupConfig(near=True, paragraph_documents=3, paragraph_characters=8, held_out=True),
)
BROKEN = b"broken\n"


def texts(count: int = 240) -> list[str]:
    """Documents with copies, near copies, repeated paragraphs, empty ones and short ones among them."""
    draw = random.Random(3)
    words = [chr(0x4E00 + n) for n in range(900)]
    out: list[str] = []
    for number in range(count):
        body = "".join(draw.choices(words, k=draw.randint(40, 90)))
        more = [
            body,
            f"{body}\n本站所有文章均来自网络转载",
            "",
            "短",
            f"{body}\n责任编辑：王五，未经许可不得转载",
            body,
        ]
        near = f"{out[draw.randrange(number)]}尾" if number else body
        out.append([*more, near, out[draw.randrange(number)] if number else body][number % 8])
    return out


def inputs(folder: Path) -> CorpusConfig:
    """Two sources: files of several kinds, one large, one without any document."""
    folder.mkdir()
    lines = [orjson.dumps({"text": text}) + b"\n" for text in texts()]
    (folder / "a1.jsonl").write_bytes(b"".join(lines[:30]) + BROKEN)
    (folder / "a2.jsonl.gz").write_bytes(gzip.compress(b"".join([*lines[30:60], BROKEN, *lines[60:90]]), mtime=0))
    (folder / "b1.jsonl").write_bytes(BROKEN + b"".join([BROKEN, *lines[90:200], BROKEN]))
    (folder / "b2.txt").write_text("\n\n".join(texts()[200:]), encoding="gb18030")
    (folder / "b3.jsonl.zst").write_bytes(zstandard.compress(BROKEN))
    (folder / "b4.log").touch()
    first, second = SourceConfig([str(folder / "a*")]), SourceConfig([str(folder / "b*")], txt_split="blank_lines")
    return CorpusConfig(
        sources={"first": first, "second": second}, workers=1, max_broken_share=0.5, val_share=0.2
    )  # fmt: skip


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}


def manifest_of(folder: Path) -> dict:
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return {name: value for name, value in manifest.items() if name != "inputs"}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks so small that each holds a few documents of these."""
    monkeypatch.setattr(streams, "_BLOCK_BYTES", 600)
    monkeypatch.setattr(streams, "_PACKED_BLOCK_BYTES", 200)
    monkeypatch.setattr(work, "PART_CHARACTERS", 1500)
    monkeypatch.setattr(spool, "BLOCK_DOCUMENTS", 16)
    sizes = {name: size // 4096 * 16 for name, size in spool._BLOCK_BYTES.items()}
    monkeypatch.setattr(spool, "_BLOCK_BYTES", sizes)


def in_this_process(job, done, *, progress=None, say=print) -> None:
    """`run_job` without an executor."""
    for phase in job.phases:
        for task in reversed(range(phase.tasks)):  # the order does not matter
            if not done[phase.name](task):
                phase.call(job.settings, task)


@pytest.mark.parametrize("tasks", [1, 2, 5, 9, 40])
def test_tasks_make_the_same_files_however_many_there_are(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch, tasks: int
) -> None:
    config = inputs(tmp_path / "in")
    build_alone(config, tmp_path / "alone", RULES)
    monkeypatch.setattr(cluster_corpus, "run_job", in_this_process)
    shares = cut(corpus_sources(config, RULES), ClusterConfig(tasks=tasks))
    assert tasks // 2 <= len(shares) <= 2 * tasks
    assert any(part.window for share in shares for part in share.parts.values()) == (tasks > 2)
    build_corpus_by_tasks(config, tmp_path / "corpus", ClusterConfig("local", tasks), RULES)
    assert content(tmp_path / "corpus") == content(tmp_path / "alone")
    assert manifest_of(tmp_path / "corpus") == manifest_of(tmp_path / "alone")
    assert not work_folder(tmp_path / "corpus").exists()
    drops = json.loads((tmp_path / "corpus" / "drops.json").read_text(encoding="utf-8"))
    assert drops["broken_records"] == 6 and drops["rules"].keys() >= {"near_duplicate", "repeated_paragraphs"}


def test_without_comparing_documents_it_is_the_same_too(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = inputs(tmp_path / "in")
    build_alone(config, tmp_path / "alone")
    monkeypatch.setattr(cluster_corpus, "run_job", in_this_process)
    build_corpus_by_tasks(config, tmp_path / "corpus", ClusterConfig("local", 6))
    assert content(tmp_path / "corpus") == content(tmp_path / "alone")


def test_the_executor_of_this_machine_makes_the_same_files(tmp_path: Path) -> None:
    pytest.importorskip("datatrove", reason="datatrove is not installed (extra cluster)")
    config, said = inputs(tmp_path / "in"), []
    build_alone(config, tmp_path / "alone", RULES)
    cluster = ClusterConfig("local", tasks=3, workers=2)
    build_corpus_by_tasks(config, tmp_path / "run" / "corpus", cluster, RULES, tell=said.append)
    assert content(tmp_path / "run" / "corpus") == content(tmp_path / "alone")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["cluster", "corpus"]
    assert "logs in" in said[0]


def test_too_much_that_is_broken_fails_at_the_end_and_can_be_allowed_without_reading_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = inputs(tmp_path / "in")
    config.max_broken_share = 0.001
    monkeypatch.setattr(cluster_corpus, "run_job", in_this_process)
    with pytest.raises(FangcunError, match="max_broken_share"):
        build_corpus_by_tasks(config, tmp_path / "corpus", ClusterConfig("local", 4), RULES)
    calls: list[int] = []
    monkeypatch.setattr(cluster_corpus, "read", lambda settings, task: calls.append(task))
    config.max_broken_share = 0.5
    build_corpus_by_tasks(config, tmp_path / "corpus", ClusterConfig("local", 4), RULES)
    build_alone(config, tmp_path / "alone", RULES)
    assert calls == [] and content(tmp_path / "corpus") == content(tmp_path / "alone")


def test_shares_are_contiguous_and_hold_all(tmp_path: Path) -> None:
    sources = corpus_sources(inputs(tmp_path / "in"), RULES)
    for tasks in (1, 3, 8, 50):
        read: list[tuple[str, int, int]] = []
        for share in cut(sources, ClusterConfig(tasks=tasks)):
            for source in share.sources(sources):
                for path in source.files:
                    read.append((source.names[path], *(source.window or (0, source.sizes[path] + 1))))
        names = [source.names[path] for source in sources for path in source.files]
        assert list(dict.fromkeys(name for name, _, _ in read)) == names
        for name in names:
            windows = [(start, stop) for each, start, stop in read if each == name]
            size = next(source.sizes[path] for source in sources for path in source.files if source.names[path] == name)
            assert [start for start, _ in windows] == [0, *(stop for _, stop in windows[:-1])]
            assert windows[-1][1] == size + 1


def test_a_plan_of_other_shares_is_not_gone_on_with(tmp_path: Path) -> None:
    config = inputs(tmp_path / "in")
    sources = corpus_sources(config, RULES)
    fingerprint = corpus_fingerprint(config, rules=RULES)[0]
    plans = [
        Plan(config, fingerprint, tmp_path / "work", sources, cut(sources, ClusterConfig(tasks=tasks)))
        for tasks in (3, 9)
    ]
    assert plans[0].task_folder(1) != plans[1].task_folder(1)
    assert os.path.commonpath([str(plans[0].task_folder(1)[0]), str(tmp_path)]) == str(tmp_path)
