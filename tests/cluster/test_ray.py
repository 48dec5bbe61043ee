"""Tasks on a Ray that is started on this machine for the time of the stage."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cluster_inputs import RULES, content, inputs

from fangcun.cluster import build_corpus_by_tasks
from fangcun.config.cluster import ClusterConfig
from fangcun.corpus import build_corpus
from fangcun.errors import FangcunError

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="datatrove's executors fork")]


@pytest.fixture(autouse=True)
def _ray(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datatrove", reason="datatrove is not installed (extra cluster)")
    pytest.importorskip("ray", reason="ray is not installed (extra ray)")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_ray_makes_the_files_of_a_single_process(tmp_path: Path) -> None:
    config = inputs(tmp_path / "in")
    build_corpus(config, tmp_path / "alone", RULES)
    build_corpus_by_tasks(config, tmp_path / "run" / "corpus", ClusterConfig("ray", tasks=3, workers=2), RULES)
    assert content(tmp_path / "run" / "corpus") == content(tmp_path / "alone")
    assert (tmp_path / "run" / "cluster" / "corpus" / "read" / "logs" / "task_00001.log").is_file()


def test_what_no_machine_can_take_is_said_and_a_failed_task_is_named(tmp_path: Path) -> None:
    config = inputs(tmp_path / "in")
    with pytest.raises(FangcunError, match="Lower --cluster"):
        build_corpus_by_tasks(config, tmp_path / "corpus", ClusterConfig("ray", 3, memory_gb=1e6), RULES)
    packed = tmp_path / "in" / "a2.jsonl.gz"
    packed.write_bytes(packed.read_bytes()[:-100])
    with pytest.raises(FangcunError, match=r"phase read that are not done: 1 of \d.*does not unpack"):
        build_corpus_by_tasks(config, tmp_path / "corpus", ClusterConfig("ray", 3, workers=2), RULES)
