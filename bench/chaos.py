"""Pull the plug, again and again: does a run of several processes ever lose anything?

    python bench/chaos.py --runs 50
    python bench/chaos.py --runs 1 --seed 17 --only kill     # the run that failed, with the same faults at the same steps

Each run trains a tiny model with torchrun (gloo), meets one to three faults at random steps, goes on (torchrun by itself
where it was told --max-restarts, the same command again otherwise) and has to end with the very bytes of a run that was left alone:
weights, optimizer state and logged losses. After each fault every checkpoint folder must match the sha256 in its manifest, and
the newest must not be older than the newest before. Exit code 1 where anything of this fails; the run folder is kept.

Faults: kill      SIGKILL to a random rank; torchrun restarts the ranks by itself
        kill-again SIGKILL to a random rank without restarts; the command is given again
        kill-all  SIGKILL to torchrun and all ranks, as when a machine loses its power (but the disk cache is kept)
        term      SIGTERM to torchrun, which hands it on: the run must save the step it is at
        term-all  SIGTERM to torchrun and to each rank, as Slurm does
        full      the disk (a tmpfs) fills up, at once or while a checkpoint is written; later there is room again. Needs root
        slow      each fsync and rename takes up to 0.1 s (a sitecustomize of this script's), and a rank gets SIGKILL
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

from chaos_run import SLOW_DISK, Run, SmallDisk, mount_works

FAULTS = ("kill", "kill-again", "kill-all", "term", "term-all", "full", "slow")


class Violation(Exception):  # noqa: N818  (no mistake of this script: what it looks for)
    """A promise that was broken."""


def main() -> int:
    """Parse the command line, make the reference, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the first run; the next has the next")
    parser.add_argument(
        "--only", choices=FAULTS, action="append", help="these faults alone; may be given several times"
    )
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument(
        "--settings", nargs="*", default=[], help="more settings of the recipe, as KEY=VALUE: train.strategy=fsdp"
    )
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    arguments = parser.parse_args()
    faults = list(arguments.only or FAULTS)
    if "full" in faults and not mount_works():
        print("full disk: left out, no tmpfs can be mounted here (not root?)")
        faults.remove("full")
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="fangcun-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    flags = [word for pair in arguments.settings for word in ("--" + pair.split("=", 1)[0], pair.split("=", 1)[1])]
    reference = prepare(folder, arguments.ranks, arguments.steps, flags)
    results: list[dict[str, str]] = []
    for number in range(arguments.runs):
        seed = arguments.seed + number
        # Every fault in turn, so that few runs meet them all; when and how often is the seed's.
        fault = faults[seed % len(faults)]
        started = time.perf_counter()
        run = Run(folder / f"run-{seed}", reference.folder, arguments.ranks, arguments.steps, flags)
        try:
            told = disturb(run, reference, fault, random.Random(seed))
            shutil.rmtree(run.folder, ignore_errors=True)
            outcome = "whole"
        except Violation as violation:
            told, outcome = [str(violation)], "VIOLATION"
        finally:
            run.kill_all()
        seconds = time.perf_counter() - started
        print(f"seed {seed:<4} {fault:<10} {outcome:<9} {seconds:5.0f} s  {'; '.join(told)}", flush=True)
        results.append({"fault": fault, "outcome": outcome, "told": json.dumps(told)})
        if outcome == "VIOLATION":
            print(f"          kept: {run.folder}; what it printed: {run.log}", flush=True)
    print_table(results)
    broken = sum(result["outcome"] == "VIOLATION" for result in results)
    if not broken and arguments.folder is None:
        shutil.rmtree(folder, ignore_errors=True)
    print(
        f"\n{len(results)} runs, {broken} violations; seeds {arguments.seed} to {arguments.seed + arguments.runs - 1}"
    )
    return 1 if broken else 0


def prepare(folder: Path, ranks: int, steps: int, flags: list[str]) -> Run:
    """The run that nobody disturbs; its tokens serve all others."""
    reference = Run(folder / "undisturbed", None, ranks, steps, flags)
    if not reference.finished_checkpoint():
        started = time.perf_counter()
        reference.start(restarts=0)
        code = reference.wait(seconds=600)
        if code or not reference.finished_checkpoint():
            sys.exit(f"the undisturbed run ended with {code}:\n{reference.log.read_text(errors='replace')[-3000:]}")
        print(f"undisturbed: {ranks} ranks, {steps} steps, {time.perf_counter() - started:.0f} s", flush=True)
    return reference


def disturb(run: Run, reference: Run, fault: str, draw: random.Random) -> list[str]:
    """One run with its faults; what happened, in words. Raises Violation."""
    times = draw.randint(1, 3)
    steps = sorted(draw.sample(range(1, run.steps - 5), times))
    delays = [draw.uniform(0, 0.15) for _ in steps]
    told: list[str] = []
    if fault == "full":
        with SmallDisk(run.folder, size_mib=96) as disk:
            fill_up(run, disk, steps, draw, told)
            finish(run, reference, told)
        return told
    by_itself = fault in ("kill", "slow")
    environment = {"PYTHONPATH": str(SLOW_DISK), "FANGCUN_CHAOS_SEED": str(draw.random())} if fault == "slow" else {}
    run.start(restarts=times if by_itself else 0, **environment)
    for step, delay in zip(steps, delays, strict=True):
        if not run.wait_for_step(step, seconds=240):
            break  # it went on from beyond: the end came first
        time.sleep(delay)
        before = run.newest_step()
        if not run.alive():
            break
        if by_itself:
            rank, attempt = draw.randrange(run.ranks), run.attempt()
            if run.kill_rank(rank):
                told.append(f"rank {rank} at {step}")
                if not run.wait_for_attempt(attempt + 1, seconds=120):
                    raise Violation(f"no restart within 120 s after rank {rank} was killed at step {step}")
            check(run, before, fault, running=True)
            continue
        logged = run.last_step()
        told.append(f"{send(run, fault, draw)} at {step}")
        code = run.wait(seconds=90)
        check(run, before, fault)
        if fault.startswith("term") and run.newest_step() < logged:
            raise Violation(f"SIGTERM at step {logged}: the newest checkpoint is of step {run.newest_step()}")
        told[-1] += f" (exit {code}, saved {run.newest_step()})"
        run.start(restarts=0)
    finish(run, reference, told)
    return told


def send(run: Run, fault: str, draw: random.Random) -> str:
    """Do what the fault says; how to call it."""
    rank = draw.randrange(run.ranks)
    if fault == "kill-again":
        run.kill_rank(rank)
        return f"rank {rank}"
    if fault == "kill-all":
        run.kill_all()
        return "all"
    run.terminate(everybody=fault == "term-all")
    return fault


def fill_up(run: Run, disk: SmallDisk, steps: list[int], draw: random.Random, told: list[str]) -> None:
    """Let the disk run full at each of `steps`, wait for the end of the run, make room, start again."""
    run.start(restarts=0)
    for step in steps:
        while_saving = draw.random() < 0.5
        if not run.wait_for_step(step, seconds=240) or not run.alive():
            break
        if while_saving:
            run.wait_for_saving(seconds=10)
        before = run.newest_step()
        left_mib = draw.choice((0, 0, 17))  # 17: enough for the run to try to save, see check_disk_space
        disk.fill(left_mib)
        code = run.wait(seconds=120)
        sentence = run.error_sentence()
        disk.empty()
        if code == 0:
            told.append(f"full at {step}: too late")
            break
        check(run, before, "full")
        if not re.search("[Nn]o space left|no room for a checkpoint", sentence):
            raise Violation(f"full disk at step {step}: exit {code}, but no sentence about it: {sentence!r}")
        told.append(f"full{' while saving' if while_saving else ''} at {step} ({left_mib} MiB left)")
        run.start(restarts=0)


def check(run: Run, before: int, fault: str, *, running: bool = False) -> None:
    """No torn folder, nothing lost beyond the last save. A running run may take old folders away while they are read."""
    torn = run.torn_folders(may_vanish=running)
    if torn:
        raise Violation(f"{fault}: torn: {torn}")
    if run.newest_step() < before:
        raise Violation(f"{fault}: the newest checkpoint was step {before}, now it is {run.newest_step()}")


def finish(run: Run, reference: Run, told: list[str]) -> None:
    """Wait for the end, begun again if need be, and compare it with the undisturbed run's. Raises Violation."""
    code = run.wait(seconds=300)
    if code != 0:
        raise Violation(f"the last start ended with {code}: {run.error_sentence()!r} (before: {'; '.join(told)})")
    where = f"(before: {'; '.join(told)})"
    if run.torn_folders():
        raise Violation(f"at the end: torn: {run.torn_folders()} {where}")
    left = [str(path.relative_to(run.folder)) for path in run.folder.rglob("*.tmp-*")]
    left += ["writer.lock"] * (run.folder / "writer.lock").exists()
    if left:
        raise Violation(f"left behind: {left} {where}")
    if run.losses() != reference.losses():
        raise Violation(f"the logged losses are not those of the undisturbed run {where}")
    differing = run.end_state().differences(reference.end_state())
    if differing:
        raise Violation(f"the end differs from the undisturbed run's in {differing} {where}")


def print_table(results: list[dict[str, str]]) -> None:
    """Faults by outcomes."""
    print(f"\n| {'fault':<10} | runs | faults met | whole at the end | violations |\n|---|---|---|---|---|")
    by_fault: dict[str, list[dict[str, str]]] = collections.defaultdict(list)
    for result in results:
        by_fault[result["fault"]].append(result)
    for fault, rows in by_fault.items():
        whole = [row for row in rows if row["outcome"] == "whole"]
        met = sum(len(json.loads(row["told"])) for row in whole)
        print(f"| {fault:<10} | {len(rows)} | {met} | {len(whole)} | {len(rows) - len(whole)} |")


if __name__ == "__main__":
    sys.exit(main())
