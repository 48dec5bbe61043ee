"""A job: phases one after the other, each of tasks that may run at the same time, and the folder where their traces lie.

The folder holds `job.json` and for each phase a folder in datatrove's layout: `completions/` with an empty file for each
finished task, `logs/`, and `failures/` with the sentence of each task that failed.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fangcun.artifacts import write_text_atomic
from fangcun.config.cluster import ClusterConfig

JOB = "job.json"
DRIVER_LOG = "executor.log"
SLURM_JOBS = "jobs"
"""The numbers of the jobs that were submitted."""
INCOMPLETE, REFUSED = 3, 4
"""Exit codes of the process that submits: tasks failed; sbatch took no job."""
MAX_TASKS = 1000
_TASK_BYTES = 256_000_000


@dataclass(frozen=True)
class Phase:
    """Tasks 0 … tasks - 1, each a call of `function(settings, task)`."""

    name: str
    function: str
    """`package.module:name`, imported where the task runs."""
    tasks: int
    sizes: list[int] = field(default_factory=list)
    """Bytes that each task works on, for progress. Empty: the phase does not show."""

    def folder(self, job: Path) -> Path:
        """Where its traces lie."""
        return job / self.name

    def log(self, job: Path, task: int) -> Path:
        """The log of a task."""
        return self.folder(job) / "logs" / f"task_{task:05d}.log"

    def failure(self, job: Path, task: int) -> Path:
        """The sentence of a task that failed."""
        return self.folder(job) / "failures" / f"{task:05d}.txt"

    def completed(self, job: Path) -> set[int]:
        """Tasks that are done."""
        folder = self.folder(job) / "completions"
        return {int(file.name) for file in folder.iterdir() if file.name.isdigit()} if folder.is_dir() else set()

    def call(self, settings: dict[str, Any], task: int) -> None:
        """Do the work of a task, in this process."""
        module, _, name = self.function.partition(":")
        function: Callable[[dict[str, Any], int], None] = getattr(importlib.import_module(module), name)
        function(settings, task)


@dataclass(frozen=True)
class Job:
    """What is to be done and by whom. Everything in it can be written as JSON: it travels as a file."""

    title: str
    """Of the stage: corpus, tokens."""
    folder: Path
    config: ClusterConfig
    settings: dict[str, Any]
    """What the tasks are told."""
    phases: list[Phase]

    def write(self) -> None:
        """Write `job.json`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text_atomic(self.folder / JOB, self._text())

    def is_other_than_written(self) -> bool:
        """Whether what `job.json` says is another job."""
        return (self.folder / JOB).read_text(encoding="utf-8") != self._text()

    def _text(self) -> str:
        content = {**dataclasses.asdict(self), "folder": str(self.folder)}
        return json.dumps(content, ensure_ascii=False, indent=1) + "\n"

    @classmethod
    def read(cls, folder: Path) -> Job:
        """The job that `write` wrote."""
        content = json.loads((folder / JOB).read_text(encoding="utf-8"))
        return cls(
            content["title"],
            Path(content["folder"]),
            ClusterConfig(**content["config"]),
            content["settings"],
            [Phase(**phase) for phase in content["phases"]],
        )

    def mark(self, phase: Phase, done: Callable[[int], bool]) -> None:
        """Make the marks of `phase` say what is true: `done` tells whether a task's result is there and whole."""
        folder = phase.folder(self.folder) / "completions"
        folder.mkdir(parents=True, exist_ok=True)
        marked = phase.completed(self.folder)
        for task in range(phase.tasks):
            if done(task) == (task in marked):
                continue
            mark = folder / f"{task:05d}"
            mark.unlink() if task in marked else mark.touch()
        for task in marked - set(range(phase.tasks)):
            (folder / f"{task:05d}").unlink()
        shutil.rmtree(phase.folder(self.folder) / "failures", ignore_errors=True)


def count_tasks(config: ClusterConfig, size_bytes: int) -> int:
    """Tasks of a stage that reads `size_bytes`."""
    return config.tasks or max(1, min(MAX_TASKS, -(-size_bytes // _TASK_BYTES)))
