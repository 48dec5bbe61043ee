"""`fangcun launch slurm RECIPE`: check all that can be checked here, write the job script, hand it to sbatch."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fangcun.artifacts import list_checkpoints, read_manifest, refuse_taken_in, write_text_atomic
from fangcun.config import LoadedRecipe, recipe_names
from fangcun.errors import ConfigError, FangcunError
from fangcun.launch.options import SlurmOptions
from fangcun.launch.script import FOLDER, SCRIPT, job_script

_LENGTH = ("train.max_steps", "train.max_tokens", "train.epochs", "train.max_time")
_QUEUE_SECONDS = 60
"""How long sbatch and squeue may take to answer."""


def launch_slurm(
    loaded: LoadedRecipe,
    options: SlurmOptions,
    *,
    source: str,
    flags: Sequence[str],
    say: Callable[[str], None] = print,
) -> int | None:
    """Write and submit the job that runs recipe `source` with `flags`; return its number (None for a dry run).

    `loaded` is the same recipe, read. Raises FangcunError for what would make the job fail, before anything is written.
    """
    folder = Path(loaded.recipe.out_dir or Path("runs") / loaded.name).resolve()
    if loaded.recipe.resume is False:
        raise ConfigError(
            f"{loaded.origins.get('resume', 'resume')}: false, but a job that is requeued must go on from its checkpoint. "
            "Leave it out (auto), or use --out NEW for a new run."
        )
    _refuse_finished(folder, loaded)
    # A file by its absolute path; a shipped recipe by its name.
    recipe = source if source in recipe_names() else str(Path(source).resolve())
    script = job_script(
        options, name=loaded.name, folder=folder, cwd=Path.cwd(), command=["run", recipe, *flags]
    )  # fmt: skip
    if options.dry_run:
        say(script.rstrip("\n"))
        return None
    sbatch = shutil.which("sbatch")
    if sbatch is None:
        raise FangcunError(
            "there is no sbatch on PATH, so this machine cannot submit to Slurm. Run this on the cluster's login node, or "
            "look at the script with --dry-run."
        )
    _refuse_queued(folder)
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    path = folder / FOLDER / SCRIPT
    write_text_atomic(path, script)
    job = _submit(sbatch, path)
    write_text_atomic(folder / FOLDER / "job", f"{job}\n")
    say(f"job {job}     submitted: {path}")
    say(f"log        {folder / FOLDER / f'log-{job}.txt'}")
    say(f"status     squeue --jobs {job}; to save and stop: scancel {job}")
    return job


def _submit(sbatch: str, path: Path) -> int:
    try:
        done = subprocess.run(
            [sbatch, "--parsable", str(path)],
            capture_output=True, encoding="utf-8", errors="replace", timeout=_QUEUE_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise FangcunError(
            f"sbatch did not answer within {_QUEUE_SECONDS} s. Look with squeue whether the job is there, then try again."
        ) from error
    number = re.match(r"\d+", done.stdout.strip())  # with several clusters: number;cluster
    if done.returncode or number is None:
        words = " ".join((done.stderr or done.stdout).split())
        raise FangcunError(f"sbatch refused {path}: {words or f'exit code {done.returncode}'}")
    return int(number[0])


def _refuse_finished(folder: Path, loaded: LoadedRecipe) -> None:
    """A job for a run that is at its end would wait in the queue for nothing."""
    kept = list_checkpoints(folder)
    if not kept:
        return
    refuse_taken_in(folder)
    manifest = read_manifest(kept[-1], "checkpoint")
    progress: dict[str, Any] = json.loads((kept[-1] / "training_state" / "progress.json").read_text(encoding="utf-8"))
    then: dict[str, Any] = manifest.settings["recipe"]
    now = {key: getattr(loaded.recipe.train, key.partition(".")[2]) for key in _LENGTH}
    if progress.get("finished") and all(then.get(key) == value for key, value in now.items()):
        raise FangcunError(
            f"{folder} is a finished run (step {progress['step']:,}). Raise --train.max_steps to go on with it, or choose "
            "another folder with --out."
        )


def _refuse_queued(folder: Path) -> None:
    """Two jobs in one run folder: the second would wait, start and be refused."""
    file = folder / FOLDER / "job"
    squeue = shutil.which("squeue")
    if squeue is None or not file.is_file():
        return
    job = file.read_text(encoding="utf-8").strip()
    try:
        asked = subprocess.run(
            [squeue, "--noheader", "--jobs", job, "--format", "%T"],
            capture_output=True, encoding="utf-8", errors="replace", timeout=_QUEUE_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return
    state = asked.stdout.strip()  # nothing, or an error, once the job is over and forgotten
    if asked.returncode == 0 and state:
        raise FangcunError(
            f"job {job} of {folder} is {state} already. Wait for it, end it with scancel {job}, or choose another folder "
            "with --out."
        )
