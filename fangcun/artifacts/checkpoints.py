"""Finding checkpoints: the newest complete one of a run, a checkpoint itself, or a plain Hugging Face folder."""

from __future__ import annotations

import re
from pathlib import Path

from fangcun.artifacts.folder import MANIFEST, is_artifact, parse_manifest, read_manifest
from fangcun.errors import FangcunError

_STEP = re.compile(r"step-(\d{8,})$")


def checkpoint_name(step: int) -> str:
    """Folder name of a step: step-00001000."""
    return f"step-{step:08d}"


def checkpoint_step(folder: Path) -> int | None:
    """The step in a checkpoint folder's name, or None for another name."""
    match = _STEP.search(Path(folder).name)
    return int(match.group(1)) if match else None


def list_checkpoints(run: Path) -> list[Path]:
    """Complete checkpoints of a run folder, oldest first. Temporary and torn folders are left out."""
    folders = [
        p for p in (Path(run) / "checkpoints").glob("step-*") if _STEP.fullmatch(p.name) and (p / MANIFEST).is_file()
    ]
    return sorted(folders, key=lambda p: checkpoint_step(p) or 0)


def find_weights(path: str | Path) -> Path:
    """The folder with `config.json` and weights that `path` means.

    `path` is a run folder (its newest complete checkpoint), a checkpoint, or a Hugging Face folder. Raises FangcunError.
    """
    path = Path(path)
    if not path.exists():
        raise FangcunError(
            f"{path} does not exist. Expected a run folder, a checkpoint or a Hugging Face model folder."
        )
    if (path / "config.json").is_file():
        if (path / MANIFEST).is_file():
            kind = "export" if is_artifact(path, "export") else "checkpoint"
            read_manifest(path, kind, without="training_state")
        return path
    checkpoints = list_checkpoints(path)
    if checkpoints:
        read_manifest(checkpoints[-1], "checkpoint", without="training_state")
        return checkpoints[-1]
    if (path / "checkpoints").is_dir() or (path / "recipe.yaml").is_file():
        raise FangcunError(
            f"{path} has no complete checkpoint yet. Train it first: fangcun run {path / 'recipe.yaml'} --out {path}"
        )
    raise FangcunError(
        f"{path} is no model: it has neither checkpoints/ nor config.json. Expected a run folder, a checkpoint or a Hugging Face model folder."
    )


def was_taken_in(checkpoint: Path) -> bool:
    """Whether `fangcun import` made a checkpoint, so that no training stands behind it. Its files are not looked at."""
    file = checkpoint / MANIFEST
    try:
        return "imported" in parse_manifest(file.read_bytes(), str(file), "checkpoint").settings
    except (OSError, FangcunError):
        return False  # who reads it next says what is wrong


def refuse_taken_in(run: Path) -> None:
    """Raise FangcunError for a run that holds a model that was taken in, which is not trained over."""
    kept = list_checkpoints(run)
    if kept and was_taken_in(kept[-1]):
        raise FangcunError(
            f"{run} holds a model that was taken in, and is kept as it came. Train it on in a folder of its own: "
            f"--init_from {run} --out NEW (its recipe.yaml does so, without --out)."
        )
