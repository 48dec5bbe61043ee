"""A job ends with all tasks done once, or says which failed and why; the same job again does the missing ones only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fangcun.cluster import Job, Phase, run_job
from fangcun.cluster.job import count_tasks
from fangcun.cluster.run import check_executor
from fangcun.config.cluster import ClusterConfig
from fangcun.errors import FangcunError

pytest.importorskip("datatrove", reason="datatrove is not installed (extra cluster)")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="datatrove's executors fork")


@pytest.fixture(autouse=True)
def _tasks_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).resolve().parents[2]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), str(Path(__file__).parent)]))


def squares(folder: Path, tasks: int = 4, workers: int = 2, executor: str = "local") -> Job:
    out = folder / "out 它's"
    out.mkdir(exist_ok=True)
    config = ClusterConfig(executor=executor, workers=workers)  # type: ignore[arg-type]
    phases = [
        Phase("square", "cluster_tasks:square", tasks, [10] * tasks),
        Phase("total", "cluster_tasks:total", 1),
    ]
    return Job("squares", folder / "job 它's", config, {"out": str(out)}, phases)


def do(job: Job, **more) -> list[str]:
    out, said = Path(job.settings["out"]), []
    done = {
        "square": lambda task: (out / f"square-{task}").exists(),
        "total": lambda _: (out / "total").exists(),
    }
    check_executor(job)
    run_job(job, done, say=said.append, **more)
    return said


def calls(job: Job, task: int) -> int:
    return len((Path(job.settings["out"]) / f"calls-{task}").read_text().splitlines())


@pytest.mark.slow
def test_phases_run_in_order_and_a_second_run_does_nothing(tmp_path: Path) -> None:
    job, shown = squares(tmp_path), []
    said = do(job, progress=lambda done, total: shown.append(done / total))
    assert (Path(job.settings["out"]) / "total").read_text() == "14"
    assert len(said) == 1 and "5 tasks by local" in said[0] and str(job.folder) in said[0]
    assert shown == sorted(shown) and shown[-1] == 1
    assert job.phases[0].log(job.folder, 2).is_file()
    assert do(job) == [] and [calls(job, task) for task in range(4)] == [1] * 4


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_failed_task_is_named_with_its_log_and_only_it_runs_again(tmp_path: Path, workers: int) -> None:
    job = squares(tmp_path, workers=workers)
    bad, bug = (Path(job.settings["out"]) / name for name in ("bad-1", "bug-2"))
    bad.touch()
    bug.touch()
    with pytest.raises(FangcunError, match="phase square that are not done: 2 of 4") as error:
        do(job)
    log = job.phases[0].log(job.folder, 1)
    assert f"Task 1: 1 is no good number. (log: {log})" in str(error.value) and "Task 2: ValueError" in str(error.value)
    assert "no good number" in log.read_text() and "Traceback" in job.phases[0].log(job.folder, 2).read_text()
    bad.unlink()
    bug.unlink()
    do(job)
    assert [calls(job, task) for task in range(4)] == [1, 2, 2, 1]
    assert (Path(job.settings["out"]) / "total").read_text() == "14"


@pytest.mark.slow
def test_a_task_that_is_killed_is_noticed(tmp_path: Path) -> None:
    job = squares(tmp_path)
    (Path(job.settings["out"]) / "die-3").touch()
    with pytest.raises(FangcunError, match=r"1 of 4\. Task 3: its process ended with exit code 9"):
        do(job)


@pytest.mark.slow
def test_a_mark_without_a_result_counts_for_nothing(tmp_path: Path) -> None:
    job = squares(tmp_path, tasks=2)
    do(job)
    for name in ("square-1", "total"):
        (Path(job.settings["out"]) / name).unlink()
    do(job)
    assert [calls(job, task) for task in range(2)] == [1, 2]


def test_an_interrupted_job_leaves_no_process_and_goes_on(tmp_path: Path) -> None:
    job = squares(tmp_path)
    wait = Path(job.settings["out"]) / "wait-3"
    wait.touch()

    def interrupt() -> None:
        while not (Path(job.settings["out"]) / "calls-3").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        do(job)
    assert not processes_with("fangcun.cluster.submit", str(job.folder))
    wait.unlink()
    do(job)
    assert (Path(job.settings["out"]) / "total").read_text() == "14" and calls(job, 3) == 2


@pytest.mark.slow
def test_tasks_end_when_the_command_is_killed(tmp_path: Path) -> None:
    job = squares(tmp_path)
    (Path(job.settings["out"]) / "wait-0").touch()
    job.write()
    child = subprocess.Popen(
        [sys.executable, "-m", "fangcun.cluster.submit", str(job.folder)],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    while not (Path(job.settings["out"]) / "calls-0").exists():
        time.sleep(0.05)
    assert child.stdin is not None
    child.stdin.close()  # as the end of the starting process does
    assert child.wait(timeout=30) != 0
    give_up = time.monotonic() + 10
    while in_group(child.pid) and time.monotonic() < give_up:
        time.sleep(0.05)
    assert not in_group(child.pid)


def test_what_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(FangcunError, match=r"needs datatrove: pip install 'fangcun\[cluster\]'"):
        do(squares(tmp_path))
    monkeypatch.undo()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FangcunError, match="no sbatch"):
        do(squares(tmp_path, executor="slurm"))


def test_the_number_of_tasks_follows_the_input_alone() -> None:
    assert [count_tasks(ClusterConfig(), size) for size in (0, 256_000_001, 10**15)] == [1, 2, 1000]
    assert count_tasks(ClusterConfig(tasks=7), 1) == 7


def processes_with(*words: str) -> list[str]:
    if not Path("/proc").is_dir():
        pytest.skip("needs /proc")
    lines = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(process.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return [line for line in lines if all(word in line for word in words)]


def in_group(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
