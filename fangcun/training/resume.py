"""What a run may change when it goes on, and which checkpoint it goes on from."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from fangcun.artifacts import checkpoint_step, list_checkpoints, read_manifest
from fangcun.config import Recipe
from fangcun.errors import FangcunError

MAY_CHANGE = (
    "train.max_steps",
    "train.max_tokens",
    "train.epochs",
    "train.max_time",
    "train.micro_batch_size",
    "train.log_interval",
    "train.save_interval",
    "train.num_threads",
    "eval.",
    "samples.",
    "checkpoint.",
    "tokens.workers",
    "corpus.max_broken_share",
    "corpus.paths",  # moved text is fine; changed text is caught by the corpus's fingerprint
    "tokenizer.path",  # likewise
    "tokens.path",
    "init_from",  # read before the first step only
    "trackers",
    "device",
    "compile",
    "resume",
    "out_dir",
)
"""Keys (or their beginnings) that may differ between the parts of one run."""

_SCHEDULE = ("train.max_steps", "train.max_tokens", "train.epochs")


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """A dataclass as dotted keys: {"train.max_steps": 100, ...}. Tuples become lists."""
    result: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        key = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(item):
            result |= flatten(item, key + ".")
        else:
            result[key] = list(item) if isinstance(item, tuple) else item
    return result


def check_continuation(run: Path, stored: Recipe, asked: Recipe) -> list[str]:
    """Compare the recipe of a run that has checkpoints with what is asked for now.

    Returns warnings. Raises FangcunError naming the first keys that differ and may not. What is left at auto or null
    now is no difference: the run's own choice stands.
    """
    old, new = flatten(stored), flatten(asked)
    warnings, wrong = [], []
    for key, value in new.items():
        before = old[key]
        if value == before or any(key == k or (k.endswith(".") and key.startswith(k)) for k in MAY_CHANGE):
            if (
                key in _SCHEDULE
                and value != before
                and stored.train.lr_schedule == "cosine"
                and not asked.train.lr_decay_steps
            ):
                warnings.append(
                    f"{key}: {before} became {value}; the cosine schedule is recomputed for the new length, so this run "
                    "is no longer the one that would have had it from the start."
                )
            continue
        if value in (None, "auto"):
            continue
        wrong.append(f"{key} is {before!r} there and {value!r} now")
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise FangcunError(
            f"{run} holds a run with other settings: {'; '.join(wrong[:3])}{more}. A run is never overwritten: "
            "use the old value to go on with it, or --out NEW for a new run."
        )
    return warnings


def adopt_choices(stored: Recipe, asked: Recipe) -> Recipe:
    """`asked`, with what it leaves at auto or null filled in from the run's own recipe, where the run decided it."""
    result = dataclasses.replace(asked)
    if result.device in ("auto", stored.device):
        for name in ("precision", "compile"):
            if getattr(result, name) == "auto":
                setattr(result, name, getattr(stored, name))
        if result.train.num_threads is None and stored.device == "cpu":
            result.train = dataclasses.replace(result.train, num_threads=stored.train.num_threads)
    elif result.precision == "auto":
        result.precision = stored.precision
    return result


def choose_checkpoint(run: Path, resume: bool | str) -> Path | None:
    """The checkpoint to go on from, or None to begin. Raises FangcunError when `resume` asks for what is not there."""
    kept = list_checkpoints(run)
    if resume == "auto":
        return kept[-1] if kept else None
    if resume is True:
        if not kept:
            raise FangcunError(f"resume: true, but {run} has no checkpoint. Use --resume auto to begin a new run.")
        return kept[-1]
    if resume is False:
        if kept:
            raise FangcunError(
                f"resume: false, but {run} holds {kept[-1].name}. A run is never overwritten: use --resume auto to go "
                "on with it, or --out NEW for a new run."
            )
        return None
    folder = Path(str(resume))
    if not folder.is_dir():
        raise FangcunError(f"resume: {folder} does not exist. Expected auto, true, false or a checkpoint folder.")
    read_manifest(folder, "checkpoint")
    if (
        kept
        and kept[-1].resolve() != folder.resolve()
        and (checkpoint_step(kept[-1]) or 0) > (checkpoint_step(folder) or 0)
    ):
        raise FangcunError(
            f"resume: {folder} is older than {kept[-1]}, which going on would overwrite. Use --resume auto, or --out NEW "
            f"with --resume {folder}."
        )
    return folder
