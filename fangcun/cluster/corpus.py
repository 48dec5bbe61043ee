"""The corpus stage as a job: tasks read, clean and filter a share of the files each; one compares, splits and writes.

Each task has a first pass of its own in `corpus.work/task-00012`, and goes on from its last part when it was killed. The
last one sees them as one and writes the artefact's files into `corpus.work/final`; the command moves them to their place.
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
from fangcun.corpus.build import clear_write_errors, first_pass, second_pass, work_folder
from fangcun.corpus.process import check_kept
from fangcun.corpus.sources import Source, corpus_sources
from fangcun.corpus.work import Work
from fangcun.corpus.works import Works, is_finished

_PLAN = "plan.pickle"


@dataclass
class Plan:
    """What the tasks have to know. It is a file in the work folder; the files to read are listed once, in it."""

    config: CorpusConfig
    fingerprint: str
    folder: Path
    """The work folder."""
    sources: list[Source]
    shares: list[Share]

    def task_folder(self, task: int) -> tuple[Path, str]:
        """Where the first pass of a task lies, and its fingerprint."""
        share = dataclasses.asdict(self.shares[task])
        return self.folder / f"task-{task:05d}", fingerprint(self.fingerprint, task, share)

    @property
    def final(self) -> Final:
        """Where the artefact's files wait to be moved."""
        return Final(self.folder, self.fingerprint)

    def is_read(self, task: int) -> bool:
        """Whether the first pass of a task is done."""
        return is_finished(*self.task_folder(task))


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
    phases = [
        Phase("read", "fangcun.cluster.corpus:read", len(plan.shares), [share.size_bytes for share in plan.shares]),
        Phase("finish", "fangcun.cluster.corpus:finish", 1),
    ]
    about_job = {"work": str(plan.folder), "fingerprint": print_of_all}
    job = Job("corpus", out.parent.absolute() / "cluster" / "corpus", cluster, about_job, phases)
    check_executor(job)
    with clear_write_errors(out):
        _prepare(plan)
        done = {"read": plan.is_read, "finish": lambda _: plan.final.is_whole()}
        run_job(job, done, progress=progress, say=tell)
        with write_artifact(out, manifest) as folder:
            about = plan.final.hand_over(folder)
            manifest.settings |= about["settings"]
            manifest.counts = about["counts"]
    discard(plan.folder)
    return manifest


def _prepare(plan: Plan) -> None:
    """The work folder with the plan in it."""
    plan.final.claim()
    for source in plan.sources:  # listed here, once
        _ = source.names, source.sizes
    (plan.folder / f"{_PLAN}.new").write_bytes(pickle.dumps(plan))
    (plan.folder / f"{_PLAN}.new").replace(plan.folder / _PLAN)


def _plan(settings: dict[str, Any]) -> Plan:
    return pickle.loads((Path(settings["work"]) / _PLAN).read_bytes())


def read(settings: dict[str, Any], task: int) -> None:
    """The first pass over the share of a task."""
    plan = _plan(settings)
    if plan.is_read(task):
        return
    # How much is broken is judged when all is known: a share may be worse than the whole.
    config = dataclasses.replace(plan.config, max_broken_share=1.0, workers=1)
    sources = plan.shares[task].sources(plan.sources)
    for source in sources:
        source.config = dataclasses.replace(source.config, max_broken_share=1.0)
    with Work(*plan.task_folder(task), sources) as work:
        first_pass(work, config, sources, tell=print)


def finish(settings: dict[str, Any], task: int = 0) -> None:
    """Compare all documents, split them and write the files of the artefact."""
    plan = _plan(settings)
    folders = [plan.task_folder(number) for number in range(len(plan.shares))]
    with Works(plan.folder / "all", plan.sources[0].rules, folders) as works:
        check_kept(plan.config, works.report, works.drops, works.documents)
        with plan.final.written() as (folder, about):
            about["settings"], about["counts"] = second_pass(works, plan.config, plan.sources, folder)
