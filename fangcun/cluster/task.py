"""`python -m fangcun.cluster.task FOLDER PHASE TASK`: one task, in a process of its own.

A process that runs out of memory is killed without a word, and a pool would wait for it for ever. Here another one
waits, sees that it is gone, and says so.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from fangcun.artifacts import write_text_atomic
from fangcun.cluster.job import Job, Phase
from fangcun.errors import FangcunError

_FAILED = 3


class TaskError(Exception):
    """A task failed. Its sentence is written down; data that a log could repeat does not come along."""


def run_task(job: Job, phase: Phase, task: int, log: Callable[[str], None]) -> None:
    """Do a task of a job that is written, in a new process; what that prints goes to `log`. Raises TaskError."""
    file = phase.failure(job.folder, task)
    file.unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "fangcun.cluster.task", str(job.folder), phase.name, str(task)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    threading.Thread(target=_end_with_executor, args=(process, os.getppid()), daemon=True).start()
    try:
        for line in process.stdout:
            log(line.decode(errors="replace").rstrip())
        code = process.wait()
    finally:
        process.stdin.close()  # ends it where it still runs
    if code == 0:
        return
    if not file.is_file():
        how = f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
        killed = ", which is how the system ends a process when memory is short" if code == -9 else ""
        _write(file, f"its process ended with {how}{killed}.")
    raise TaskError(file.read_text(encoding="utf-8").strip())


def _end_with_executor(process: subprocess.Popen[bytes], parent: int) -> None:
    """An executor that is gone may have the task done again: two at once would write into one folder."""
    while process.poll() is None:
        if os.getppid() != parent:
            process.kill()
            os._exit(1)
        time.sleep(1)


def main(folder: Path, name: str, task: int) -> int:
    """Do the task in this process. A FangcunError is written down as it is; anything else with its traceback in the log."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    job = Job.read(folder)
    phase = next(phase for phase in job.phases if phase.name == name)
    try:
        phase.call(job.settings, task)
    except FangcunError as error:
        _write(phase.failure(folder, task), str(error))
        return _FAILED
    except Exception as error:
        _write(phase.failure(folder, task), f"{type(error).__name__}: {error}")
        raise
    return 0


def _write(file: Path, sentence: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomic(file, sentence + "\n")


def _end_with_parent() -> None:
    while os.read(0, 1):  # not sys.stdin: a forked process closes it, and would wait for its lock
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
