"""The corpus stage as a job: what the tasks have to know, and the command that has them done.

| phase  | tasks | each                                                                                      |
|--------|-------|-------------------------------------------------------------------------------------------|
| read   | many  | reads, cleans and filters a share of the files: a first pass of its own in `task-00012/`     |
| decide | one   | compares all documents and says what stays, a slice of that for each task                  |
| hold   | many  | puts aside the held-out text of its slice (only with dedup.held_out)                        |
| write  | many  | makes of its slice the documents as they are written                                      |
| finish | one   | counts, writes the report, and says which documents stand in which shard                  |
| shards | many  | writes some of the shards                                                                 |

All of it lies in `corpus.work`; the command moves the finished files to their place.
"""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fangcun.artifacts import Manifest, discard, fingerprint, write_artifact
from fangcun.cluster.final import Final
from fangcun.cluster.job import Job, Phase
from fangcun.cluster.parts import Share, cut
from fangcun.cluster.run import Progress, check_executor, run_job
from fangcun.config.cleaning import Rules
from fangcun.config.cluster import ClusterConfig
from fangcun.config.schema import CorpusConfig
from fangcun.corpus import corpus_fingerprint, corpus_settings
from fangcun.corpus.build import clear_write_errors, work_folder
from fangcun.corpus.sources import Source, corpus_sources
from fangcun.corpus.works import is_finished

_PLAN = "plan.pickle"
_TASKS = "fangcun.cluster.corpus_tasks"


@dataclass
class Plan:
    """What the tasks have to know. It is a file in the work folder; the files to read are listed once, in it."""

    config: CorpusConfig
    fingerprint: str
    """Of the corpus."""
    folder: Path
    """The work folder."""
    sources: list[Source]
    shares: list[Share]

    @property
    def final(self) -> Final:
        """Where the artefact's files wait to be moved."""
        shares = [dataclasses.asdict(share) for share in self.shares]
        return Final(self.folder, fingerprint(self.fingerprint, shares))

    def first_pass(self, task: int) -> tuple[Path, str]:
        """Where the first pass of a task lies, and its fingerprint."""
        share = dataclasses.asdict(self.shares[task])
        return self.folder / f"task-{task:05d}", fingerprint(self.fingerprint, task, share)

    @property
    def decided(self) -> Path:
        """What was decided of the corpus as a whole."""
        return self.folder / "decided.pickle"

    def slice_file(self, task: int) -> Path:
        """What was decided of the documents of a task."""
        return self.folder / f"slice-{task:05d}.pickle"

    def held(self, task: int) -> Path:
        """Where the held-out text of a task lies."""
        return self.folder / f"held-{task:05d}"

    def written(self, task: int) -> Path:
        """Where the documents of a task lie as they are written."""
        return self.folder / f"written-{task:05d}"

    def shards(self, task: int) -> list[dict[str, Any]]:
        """The shards that a task writes; empty as long as they are not known."""
        return self.final.about().get("shards", [])[task :: len(self.shares)]

    def phases(self) -> dict[str, tuple[Phase, Callable[[int], bool]]]:
        """Each phase, and whether a task of it is done."""
        count, sizes = len(self.shares), [share.size_bytes for share in self.shares]
        quarters = [size // 4 for size in sizes]  # of the time that reading takes, about
        final = self.final
        phases: list[tuple[Phase, Callable[[int], bool]]] = [
            (Phase("read", f"{_TASKS}:read", count, sizes), lambda task: is_finished(*self.first_pass(task))),
            (Phase("decide", f"{_TASKS}:decide", 1), lambda _: self.decided.is_file()),
            (Phase("hold", f"{_TASKS}:hold", count), lambda task: self.held(task).is_dir()),
            (Phase("write", f"{_TASKS}:write", count, quarters), lambda task: self.written(task).is_dir()),
            (Phase("finish", f"{_TASKS}:finish", 1), lambda _: bool(final.about())),
            (Phase("shards", f"{_TASKS}:shards", count, quarters), self._has_shards),
        ]
        if not self.sources[0].rules.dedup.held_out:
            del phases[2]
        return {phase.name: (phase, done) for phase, done in phases}

    def _has_shards(self, task: int) -> bool:
        return bool(self.final.about()) and all(
            (self.final.folder / shard["name"]).is_file() for shard in self.shards(task)
        )

    def write(self, tell: Callable[[str], None]) -> None:
        """Write it, into a work folder that is made or gone on with."""
        self.final.claim(tell)
        for source in self.sources:  # listed here, once
            _ = source.names, source.sizes
        new = self.folder / f"{_PLAN}.new"
        new.write_bytes(pickle.dumps(self))
        new.replace(self.folder / _PLAN)

    @staticmethod
    def read(settings: dict[str, Any]) -> Plan:
        """The plan of a job."""
        return pickle.loads((Path(settings["work"]) / _PLAN).read_bytes())


def build_corpus_by_tasks(
    config: CorpusConfig,
    out: Path,
    cluster: ClusterConfig,
    rules: Rules | None = None,
    *,
    progress: Progress | None = None,
    known_inputs: list[dict[str, Any]] | None = None,
    tell: Callable[[str], None] = print,
) -> Manifest:
    """`fangcun.corpus.build_corpus` with the tasks of an executor: the same files, the same manifest.

    Logs lie in `cluster/corpus` beside `out`. Raises FangcunError; what is done is then kept for the next time.
    """
    out = Path(out)
    print_of_all, inputs = corpus_fingerprint(config, known_inputs, rules)
    sources = corpus_sources(config, rules)
    plan = Plan(config, print_of_all, work_folder(out).absolute(), sources, cut(sources, cluster))
    manifest = Manifest("corpus", print_of_all, corpus_settings(config, rules), inputs=inputs)
    phases = plan.phases()
    job = Job(
        "corpus", out.parent.absolute() / "cluster" / "corpus", cluster,
        {"work": str(plan.folder), "fingerprint": plan.final.fingerprint}, [phase for phase, _ in phases.values()],
    )  # fmt: skip
    check_executor(job)
    with clear_write_errors(out):
        plan.write(tell)
        run_job(job, {name: done for name, (_, done) in phases.items()}, progress=progress, say=tell)
        with write_artifact(out, manifest) as folder:
            about = plan.final.hand_over(folder)
            manifest.settings |= about["settings"]
            manifest.counts = about["counts"]
    discard(plan.folder)
    return manifest
