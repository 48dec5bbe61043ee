"""`python -m fangcun.cluster.submit FOLDER`: hand the job in FOLDER to its executor. A process of its own.

Local and Ray: ends when the job does, or when the process that started it is gone (its standard input closes). Slurm: ends
when the jobs are submitted; their numbers stand in `jobs`. What the executor says goes to standard output and error, which
the starting process keeps in a file.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from fangcun.artifacts import write_text_atomic
from fangcun.cluster.job import INCOMPLETE, REFUSED, SLURM_JOBS, Job
from fangcun.errors import FangcunError


def main(folder: Path) -> int:
    """Run or submit; the exit code."""
    job = Job.read(folder)
    if job.config.executor == "slurm":
        try:
            submit_to_slurm(job)
        except subprocess.CalledProcessError as error:
            print(error, file=sys.stderr)
            return REFUSED
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that Ray is shut down
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with _ray(job) if job.config.executor == "ray" else contextlib.nullcontext():
        return _run(job)


def _run(job: Job) -> int:
    from fangcun.cluster.executors import local_executor, ray_executor

    make: Any = ray_executor if job.config.executor == "ray" else local_executor
    for phase in job.phases:
        if len(phase.completed(job.folder)) < phase.tasks:
            make(job, phase).run()
        if len(phase.completed(job.folder)) < phase.tasks:
            return INCOMPLETE
    return 0


def submit_to_slurm(job: Job) -> None:
    """A job array for each phase that is not done, each waiting for the one before."""
    from fangcun.cluster.executors import Slurm, slurm_executor

    before: Slurm | None = None
    chain: list[Slurm] = []
    for phase in job.phases:
        if len(phase.completed(job.folder)) < phase.tasks:  # what is done would break the chain
            before = slurm_executor(job, phase, before)
            chain.append(before)
    chain[-1].run()  # launches what it depends on first
    write_text_atomic(job.folder / SLURM_JOBS, "".join(f"{executor.job_id}\n" for executor in chain))


@contextlib.contextmanager
def _ray(job: Job) -> Any:
    import ray  # pyrefly: ignore [missing-import]

    ray.init(address=job.config.ray_address, log_to_driver=False)
    try:
        _check_resources(ray, job)
        yield
    finally:
        ray.shutdown()


def _check_resources(ray: Any, job: Job) -> None:
    """A task that no machine of the cluster can take would wait for ever. Raises FangcunError."""
    wanted_bytes = (job.config.memory_gb or 0) * 2**30
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(found.get("CPU", 0) >= 1 and found.get("memory", 0) >= wanted_bytes for found in machines):
        most = max((found.get("memory", 0) for found in machines), default=0) / 2**30
        raise FangcunError(
            f"No machine of the Ray cluster has a CPU and {job.config.memory_gb or 0:g} GB for a task: {len(machines)} "
            f"machines, at most {most:.1f} GB each. Lower --cluster.memory_gb, or name another cluster with --cluster.ray_address."
        )


def _end_with_parent() -> None:
    """When the starting process is gone, end this one and all that it started: they are one process group."""
    while os.read(0, 1):  # not sys.stdin: a forked process closes it, and would wait for its lock
        pass
    if os.name != "nt":
        os.killpg(0, signal.SIGTERM)


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1])))
    except FangcunError as complaint:
        sys.exit(f"error: {complaint}")
