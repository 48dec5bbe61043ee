"""A corpus made by tasks has the bytes of one made by a single process, however it is cut."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import pytest
from cluster_inputs import RULES, content, inputs, manifest_of, without_executor

from fangcun.cluster import corpus as cluster_corpus
from fangcun.cluster import corpus_tasks, final
from fangcun.cluster.corpus import Plan, build_corpus_by_tasks
from fangcun.cluster.parts import cut
from fangcun.config.cluster import ClusterConfig
from fangcun.corpus import build_corpus as build_alone
from fangcun.corpus import corpus_fingerprint, encoding, shards, streams, work, works
from fangcun.corpus.build import work_folder
from fangcun.corpus.dedup import spool
from fangcun.corpus.sources import corpus_sources
from fangcun.errors import FangcunError


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks so small that each holds a few documents of these."""
    monkeypatch.setattr(encoding, "PROBE_BYTES", 700)
    monkeypatch.setattr(encoding, "_HEAD_BYTES", 400)
    monkeypatch.setattr(streams, "_BLOCK_BYTES", 600)
    monkeypatch.setattr(streams, "_PACKED_BLOCK_BYTES", 200)
    monkeypatch.setattr(work, "PART_CHARACTERS", 1500)
    monkeypatch.setattr(shards, "SHARD_BYTES", 4000)
    monkeypatch.setitem(shards.ShardWriter.__init__.__kwdefaults__, "shard_bytes", 4000)
    monkeypatch.setattr(spool, "BLOCK_DOCUMENTS", 16)
    sizes = {name: size // 4096 * 16 for name, size in spool._BLOCK_BYTES.items()}
    monkeypatch.setattr(spool, "_BLOCK_BYTES", sizes)


def counting(whole, counts: list[int]):
    """`whole`, which also keeps how many documents a first pass has."""

    def mark(folder: Path, fingerprint: str) -> None:
        counts.append((folder / "numbers.bin").stat().st_size)
        whole(folder, fingerprint)

    return mark


@pytest.mark.parametrize("tasks", [1, 2, 5, 9, 40])
def test_tasks_make_the_same_files_however_many_there_are(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch, tasks: int
) -> None:
    config = inputs(tmp_path / "in")
    build_alone(config, tmp_path / "alone", RULES)
    without_executor(monkeypatch, cluster_corpus)
    shares = cut(corpus_sources(config, RULES), ClusterConfig(tasks=tasks))
    assert tasks // 2 <= len(shares) <= 2 * tasks
    assert any(part.window for share in shares for part in share.parts.values()) == (tasks > 2)
    read: list[int] = []
    monkeypatch.setattr(corpus_tasks, "mark_finished", counting(corpus_tasks.mark_finished, read))
    build_corpus_by_tasks(config, tmp_path / "corpus", ClusterConfig("local", tasks), RULES)
    assert sum(count > 0 for count in read) > tasks // 3
    assert content(tmp_path / "corpus") == content(tmp_path / "alone")
    assert manifest_of(tmp_path / "corpus") == manifest_of(tmp_path / "alone")
    assert not work_folder(tmp_path / "corpus").exists()
    assert (tmp_path / "corpus" / "train-00002.jsonl.zst").is_file()
    drops = json.loads((tmp_path / "corpus" / "drops.json").read_text(encoding="utf-8"))
    assert drops["broken_records"] == 6 and drops["rules"].keys() >= {"near_duplicate", "repeated_paragraphs"}


def test_without_comparing_documents_it_is_the_same_too(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = inputs(tmp_path / "in")
    config.val_split = "hash"
    build_alone(config, tmp_path / "alone")
    without_executor(monkeypatch, cluster_corpus)
    build_corpus_by_tasks(config, tmp_path / "corpus", ClusterConfig("local", 6))
    assert content(tmp_path / "corpus") == content(tmp_path / "alone")


@pytest.mark.slow
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
    without_executor(monkeypatch, cluster_corpus)
    with pytest.raises(FangcunError, match="max_broken_share"):
        build_corpus_by_tasks(config, tmp_path / "corpus", ClusterConfig("local", 4), RULES)
    with pytest.raises(FangcunError, match="a single process cannot go on with"):
        build_alone(config, tmp_path / "corpus", RULES)
    calls: list[int] = []
    monkeypatch.setattr(corpus_tasks, "read", lambda settings, task: calls.append(task))
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
    assert plans[0].first_pass(1) != plans[1].first_pass(1)
    assert os.path.commonpath([str(plans[0].first_pass(1)[0]), str(tmp_path)]) == str(tmp_path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_a_task_killed_anywhere_goes_on_and_the_files_are_the_same(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    config = inputs(tmp_path / "in")
    build_alone(config, tmp_path / "alone", RULES)
    killed = []

    def each_killed_once(job, done, *, progress=None, say=print) -> None:
        for phase in job.phases:
            for task in range(phase.tasks):
                child = multiprocessing.get_context("fork").Process(target=dying, args=(phase, job.settings, task))
                child.start()
                child.join()
                killed.append(child.exitcode)
                if not done[phase.name](task):
                    phase.call(job.settings, task)

    def dying(phase, settings, task: int) -> None:
        calls = iter(range(1, 10_000))
        for module in (work, works, corpus_tasks, final):
            for name in ("write_text_atomic", "discard"):
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, dies_at(getattr(module, name), calls))
        phase.call(settings, task)

    def dies_at(whole, calls):
        return lambda *args, **more: os._exit(9) if next(calls) == call else whole(*args, **more)

    without_executor(monkeypatch, cluster_corpus)
    monkeypatch.setattr(cluster_corpus, "run_job", each_killed_once)
    build_corpus_by_tasks(config, tmp_path / "corpus", ClusterConfig("local", 3), RULES)
    assert content(tmp_path / "corpus") == content(tmp_path / "alone")
    assert 9 in killed
