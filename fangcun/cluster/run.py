"""Have a job done: start it, show how far it is, name what failed, and take it down when the user ends the command."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from fangcun.cluster.job import DRIVER_LOG, INCOMPLETE, REFUSED, SLURM_JOBS, Job, Phase
from fangcun.errors import ConfigError, FangcunError

Progress = Callable[[int, int], None]
"""Called with the bytes worked on and their total."""

_POLL_SECONDS, _MOST_POLL_SECONDS = 0.2, 5.0
_SLURM_POLL_SECONDS = 30.0
_FILE_SYSTEM_SECONDS = 15.0
"""How long a mark made on another machine may take to be seen here."""
_QUEUE_SECONDS = 60
_GRACE_SECONDS = 15.0
_SHOWN_FAILURES = 3


def run_job(
    job: Job,
    done: Mapping[str, Callable[[int], bool]],
    *,
    progress: Progress | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Have all tasks done that are not done yet, by the executor that the job names; return when all are.

    `done[phase](task)` tells whether the result of a task is there and whole. Raises FangcunError that names the failed
    tasks with their logs, or says why the executor could not start. Interrupted, it ends tasks on this machine and on Ray;
    jobs of Slurm go on, and the same command again waits for them.
    """
    job.write()
    for phase in job.phases:
        job.mark(phase, done[phase.name])
    if not _missing(job):
        return
    count = sum(phase.tasks for phase in job.phases)
    kept = sum(len(phase.completed(job.folder)) for phase in job.phases)
    note = f", {kept} of them done before" if kept else ""
    say(f"{count} tasks by {job.config.executor}{note}; logs in {job.folder}")
    if job.config.executor == "slurm":
        _follow_slurm(job, progress, say)
    else:
        _follow_process(job, progress)
    if _missing(job):
        raise FangcunError(describe_failure(job))
    if progress is not None:
        progress(1, 1)


def check_executor(job: Job) -> None:
    """Raise FangcunError where the executor cannot work here, or jobs of an earlier command would be disturbed.

    To be called before anything of an earlier command is cleared away.
    """
    _check_surroundings(job)
    file = job.folder / SLURM_JOBS
    if not file.is_file() or shutil.which("squeue") is None or (numbers := alive_jobs(file)) == []:
        return
    if job.config.executor != "slurm" or job.is_other_than_written():
        raise FangcunError(
            f"{job.title}: {_named(numbers)} of an earlier command, with other settings, still wait or run in Slurm and "
            f"write to the same folders. Let them end, or end them: scancel {' '.join(numbers)}"
        )


def _check_surroundings(job: Job) -> None:
    executor = job.config.executor
    if executor is None:
        raise ValueError("a job without an executor is for this process")
    if os.name == "nt":
        raise FangcunError(
            "cluster.executor works on Linux and macOS. Leave it out: corpus.workers uses all cores here."
        )
    needed = ["datatrove", *(["ray"] if executor == "ray" else [])]
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        extra = "ray" if executor == "ray" else "cluster"
        raise FangcunError(
            f"cluster.executor {executor} needs {' and '.join(missing)}: pip install 'fangcun[{extra}]', or leave it out."
        )
    if executor != "slurm":
        return
    if shutil.which("sbatch") is None or shutil.which("squeue") is None:
        raise FangcunError(
            "cluster.executor is slurm, but there is no sbatch or squeue on PATH. Run this on the cluster's login node."
        )
    if "SLURM_ARRAY_TASK_ID" in os.environ:
        raise ConfigError(
            "cluster.executor slurm submits job arrays; it cannot be used inside of one. Use local there."
        )


def _missing(job: Job) -> Phase | None:
    """The first phase with tasks that are not done."""
    return next((phase for phase in job.phases if len(phase.completed(job.folder)) < phase.tasks), None)


def _show(job: Job, progress: Progress | None) -> None:
    if progress is None:
        return
    total = sum(sum(phase.sizes) for phase in job.phases)
    done = sum(phase.sizes[task] for phase in job.phases if phase.sizes for task in phase.completed(job.folder))
    if total and done < total:
        progress(done, total)


def _start(job: Job) -> subprocess.Popen[bytes]:
    with open(job.folder / DRIVER_LOG, "ab") as log:
        log.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {job.config.executor}\n".encode())
        log.flush()
        return subprocess.Popen(
            [sys.executable, "-m", "fangcun.cluster.submit", str(job.folder)],
            stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def _follow_process(job: Job, progress: Progress | None) -> None:
    process, started = _start(job), time.monotonic()
    try:
        while process.poll() is None:
            _show(job, progress)
            # Long jobs are looked at less often: each look lists folders, maybe over a network.
            time.sleep(min(_MOST_POLL_SECONDS, _POLL_SECONDS + (time.monotonic() - started) / 60))
    finally:
        _end_group(process)
    if process.returncode not in (0, INCOMPLETE):
        raise FangcunError(_last_words(job))


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End the executor's process and all that it started."""
    if os.name == "nt":  # where nothing is started
        return
    if process.stdin is not None:
        process.stdin.close()
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_GRACE_SECONDS)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what it left behind
            return


def _follow_slurm(job: Job, progress: Progress | None, say: Callable[[str], None]) -> None:
    file = job.folder / SLURM_JOBS
    numbers = alive_jobs(file)
    if numbers:
        say(f"waits for {_named(numbers)}, submitted before")
    else:
        process = _start(job)
        code = process.wait()
        if code:
            raise FangcunError(_last_words(job, code == REFUSED))
        numbers = file.read_text(encoding="utf-8").split()
        say(f"submitted {_named(numbers)}; status: squeue --jobs {','.join(numbers)}")
    started, gone_since = time.monotonic(), None
    try:
        while _missing(job):
            _show(job, progress)
            if alive_jobs(file):
                gone_since = None
            else:
                gone_since = gone_since or time.monotonic()
                if time.monotonic() - gone_since > _FILE_SYSTEM_SECONDS:
                    break
            # Long jobs are looked at less often: the queue answers to all users.
            time.sleep(min(_SLURM_POLL_SECONDS, 2 + (time.monotonic() - started) / 60) if gone_since is None else 1)
    except BaseException:
        say(
            f"{_named(numbers)} go on without this command: the same command again waits for them. "
            f"To end them: scancel {' '.join(numbers)}"
        )
        raise


def alive_jobs(file: Path) -> list[str]:
    """Those of the jobs listed in `file` that wait or run. Where squeue does not answer, all: nothing is submitted twice."""
    numbers = file.read_text(encoding="utf-8").split() if file.is_file() else []
    if not numbers:
        return []
    try:
        asked = subprocess.run(
            ["squeue", "--noheader", "--jobs", ",".join(numbers), "--format", "%F"],  # the number of a whole array
            capture_output=True, encoding="utf-8", errors="replace", timeout=_QUEUE_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return numbers
    if asked.returncode and "Invalid job id" not in asked.stderr:
        return numbers
    return [number for number in numbers if number in asked.stdout.split()]


def describe_failure(job: Job) -> str:
    """Which tasks failed, why, and where their logs are."""
    phase = _missing(job)
    assert phase is not None
    missing = sorted(set(range(phase.tasks)) - phase.completed(job.folder))
    # Those that say why come first; the others may only have been waiting for their turn.
    missing.sort(key=lambda task: not phase.failure(job.folder, task).is_file())
    told = [_task(job, phase, task) for task in missing[:_SHOWN_FAILURES]]
    more = f" {len(missing) - len(told)} more in {phase.folder(job.folder)}." if len(missing) > len(told) else ""
    return (
        f"{job.title}: tasks of phase {phase.name} that are not done: {len(missing)} of {phase.tasks}. {' '.join(told)}{more} "
        "What is done is kept: the same command again runs the missing tasks only."
    )


def _task(job: Job, phase: Phase, task: int) -> str:
    failure, log = phase.failure(job.folder, task), phase.log(job.folder, task)
    if failure.is_file():
        return f"Task {task}: {failure.read_text(encoding='utf-8').strip()} (log: {log})"
    if log.is_file():
        return f"Task {task}: ended without a word, by a signal, for want of memory or of time (log: {log})."
    slurm = phase.folder(job.folder) / "slurm"
    return f"Task {task}: did not begin{f' (see {slurm})' if slurm.is_dir() else f' (see {job.folder / DRIVER_LOG})'}."


def _last_words(job: Job, refused: bool = False) -> str:
    log = job.folder / DRIVER_LOG
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    if refused:
        said = [line.removeprefix("sbatch: error: ") for line in lines[-6:] if line.startswith("sbatch: error: ")]
        return f"sbatch refused the job: {' '.join(said) or last} (log: {log})"
    if last.startswith("error: "):
        return last.removeprefix("error: ")
    return f"{job.title}: the executor {job.config.executor} ended: {last} (log: {log})"


def _named(numbers: list[str]) -> str:
    return f"job{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}"
