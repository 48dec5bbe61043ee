"""A phase of a job as a pipeline of datatrove, and the three executors that run it.

Each is datatrove's own with what a stage of ours needs otherwise: a task that fails does not end the others, paths may
hold spaces, and the console stays free for the progress of the stage. This module needs datatrove; nothing else does.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from datatrove.executor.base import PipelineExecutor  # pyrefly: ignore [missing-import]
from datatrove.executor.local import LocalPipelineExecutor  # pyrefly: ignore [missing-import]
from datatrove.executor.ray import RayPipelineExecutor  # pyrefly: ignore [missing-import]
from datatrove.executor.slurm import SlurmPipelineExecutor  # pyrefly: ignore [missing-import]
from datatrove.pipeline.base import PipelineStep  # pyrefly: ignore [missing-import]
from datatrove.utils.logging import logger  # pyrefly: ignore [missing-import]
from datatrove.utils.stats import PipelineStats  # pyrefly: ignore [missing-import]

from fangcun.cluster.job import Job, Phase
from fangcun.cluster.task import TaskError, run_task
from fangcun.config.cluster import ClusterConfig
from fangcun.processes import available_cores

_JOB_SCRIPT = """\
#!/bin/bash
{directives}
set -eu
export PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
{setup}
exec {python} -m datatrove.tools.launch_pickled_pipeline {executor}
"""


class TaskStep(PipelineStep):
    """The one step of a pipeline of ours: the task with this rank does its share of a phase."""

    type = "Fangcun"

    def __init__(self, job: Job, phase: Phase) -> None:
        self.name = f"{job.title}, {phase.name}"
        super().__init__()
        self.job, self.phase = job, phase

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        """Do it. No documents flow from here: they are in files."""
        run_task(self.job, self.phase, rank, logger.info)
        return ()


class Local(LocalPipelineExecutor):
    """Tasks in processes of this machine."""

    def _launch_run_for_rank(self, rank: int, ranks_q: Any, completed: Any = None, completed_lock: Any = None) -> Any:
        try:
            return super()._launch_run_for_rank(rank, ranks_q, completed, completed_lock)
        except TaskError:  # the others go on; what is missing is known by its mark
            return PipelineStats()


class Ray(RayPipelineExecutor):
    """Tasks on a Ray cluster. Logs are written where they belong, not first to a folder that all users of a machine share."""

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> PipelineStats:
        return PipelineExecutor._run_for_rank(self, rank, local_rank, node_rank)


class Slurm(SlurmPipelineExecutor):
    """Tasks as job arrays."""

    def launch_merge_stats(self) -> None:
        """No further job for datatrove's statistics of documents, of which there are none."""

    def get_sbatch_args(self, max_array: int = 1) -> dict[str, Any]:
        """datatrove's options without those that are not asked for."""
        options = super().get_sbatch_args(max_array)
        options["output"] = options["error"] = options["output"].replace("%", "%%").replace("%%A_%%a", "%A_%a")
        if not self.mem_per_cpu_gb:
            del options["mem-per-cpu"]
        else:
            options["mem-per-cpu"] = f"{round(self.mem_per_cpu_gb * 1000)}M"
        return {name: value for name, value in options.items() if value is not None}

    def get_launch_file_contents(self, sbatch_args: dict[str, Any], run_script: str) -> str:
        """The job script, with everything quoted."""
        directives = (f"--{name}={value}" if value != "" else f"--{name}" for name, value in sbatch_args.items())
        return _JOB_SCRIPT.format(
            directives="\n".join(f"#SBATCH {_quoted(option)}" for option in directives),
            setup=self.env_command or "",
            python=shlex.quote(sys.executable),
            executor=shlex.quote(str(self.logging_dir.resolve_paths("executor.pik"))),
        )


def local_executor(job: Job, phase: Phase) -> Local:
    """The executor of a phase on this machine."""
    workers = min(phase.tasks, job.config.workers or available_cores())
    return Local([TaskStep(job, phase)], phase.tasks, workers, str(phase.folder(job.folder)))


def ray_executor(job: Job, phase: Phase) -> Ray:
    """The executor of a phase on a Ray cluster."""
    return Ray(
        [TaskStep(job, phase)], phase.tasks, job.config.workers or -1,
        logging_dir=str(phase.folder(job.folder)), mem_per_cpu_gb=job.config.memory_gb or 0,
    )  # fmt: skip


def slurm_executor(job: Job, phase: Phase, depends: Slurm | None) -> Slurm:
    """The executor of a phase under Slurm. It waits for all tasks of `depends`."""
    config = job.config
    name = f"fangcun-{job.title}-{phase.name}"
    # Null leaves the cluster's own choice, and a part of a GB is one too (Slurm above): datatrove's types know neither.
    limits: dict[str, Any] = {
        "partition": config.partition, "qos": config.qos, "mem_per_cpu_gb": config.memory_gb or 0,
    }  # fmt: skip
    return Slurm(
        [TaskStep(job, phase)], phase.tasks, config.time, job_name=name, **limits,
        workers=config.workers or -1, env_command="\n".join(config.setup),
        sbatch_args=sbatch_options(config), depends=depends, logging_dir=str(phase.folder(job.folder)),
        slurm_logs_folder=str(phase.folder(job.folder) / "slurm"),
    )  # fmt: skip


def sbatch_options(config: ClusterConfig) -> dict[str, str]:
    """Options of sbatch beside those that datatrove knows. The user's own come last: they win."""
    # A task whose phase before failed would wait in the queue for ever.
    options = {"kill-on-invalid-dep": "yes", "chdir": str(Path.cwd())}
    if config.account is not None:
        options["account"] = config.account
    for word in config.sbatch:
        name, _, value = word.removeprefix("--").partition("=")
        options[name] = value
    return options


def _quoted(option: str) -> str:
    """As sbatch reads a directive: spaces only inside double quotes."""
    return option if not any(c in option for c in " \t'#") else '"' + option.replace('"', '\\"') + '"'
