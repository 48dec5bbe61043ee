"""What a run may change when it goes on, and which checkpoint it goes on from.

A checkpoint's manifest holds the settings that it was trained with; they, not an editable file, are what counts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fangcun.artifacts import list_checkpoints, read_manifest, refuse_taken_in, was_taken_in
from fangcun.config import Recipe
from fangcun.config.check import idle_settings
from fangcun.errors import FangcunError
from fangcun.training.distributed import ranks_from_environment

MAY_CHANGE = (
    "train.max_steps",
    "train.max_tokens",
    "train.epochs",
    "train.max_time",
    "train.micro_batch_size",
    "train.log_interval",
    "train.save_interval",
    "train.num_threads",
    "train.strategy",
    "guard.",
    "deterministic",
    "eval.",
    "samples.",
    "checkpoint.",
    "mix.",
    # What these name is compared by content: the tokens' fingerprint stands in the checkpoint.
    "corpus.",
    "tokenizer.",
    "tokens.",
    "cluster.",
    "trackers",
    "tracking.",
    "device",
    "compile",
    "resume",
    "out_dir",
)
"""Keys (or their beginnings) that may differ between the parts of one run."""

_SCHEDULE = ("train.max_steps", "train.max_tokens", "train.epochs")


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """A dataclass as dotted keys: {"train.max_steps": 100, ...}. Values are as JSON gives them back."""
    result: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        key = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(item):
            result |= flatten(item, key + ".")
        else:
            result[key] = _as_json(item)
    return result


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _as_json(inner) for key, inner in value.items()}
    if dataclasses.is_dataclass(value):
        return {key: inner for key, inner in flatten(value).items() if inner is not None}
    return list(value) if isinstance(value, tuple) else value


def _replace(recipe: Recipe, key: str, value: Any) -> Recipe:
    """`recipe` with one dotted key changed."""
    section, _, leaf = key.rpartition(".")
    if not section:
        return dataclasses.replace(recipe, **{leaf: value})
    part = dataclasses.replace(getattr(recipe, section), **{leaf: value})
    return dataclasses.replace(recipe, **{section: part})


def stored_settings(checkpoint: Path) -> dict[str, Any]:
    """The settings, as dotted keys, that a checkpoint was trained with."""
    return read_manifest(checkpoint, "checkpoint").settings["recipe"]


def stored_world_size(checkpoint: Path) -> int:
    """Processes of the run when it was saved."""
    return read_manifest(checkpoint, "checkpoint").settings.get("world_size", 1)


def continue_with(checkpoint: Path, asked: Recipe, explicit: Mapping[str, str]) -> tuple[Recipe, list[str]]:
    """The recipe with which training goes on from `checkpoint`, and warnings.

    What `asked` leaves open (auto, or a null that nobody wrote; `explicit` tells where each written key stands, a flag by its name) is
    taken over from the checkpoint. Raises FangcunError naming the keys that differ and may not.
    """
    old, new = stored_settings(checkpoint), flatten(asked)
    # The shape came with the weights, and an idle setting was never read.
    skipped = set(idle_settings(asked)) | {k for k in new if k.startswith("model.") and old.get("init_from")}
    result, warnings, wrong = asked, [], []
    for key, value in new.items():
        if key not in old or key in skipped or value == old[key]:
            continue
        before = old[key]
        if key.startswith("mix."):
            shares = ("mix.weights", "mix.tokens", "mix.epochs")
            others = key in shares and any(written in explicit for written in shares)
            if key not in explicit and not others:  # left open: as it was
                result = _replace(result, key, _with_steps(before) if key == "mix.changes" else before)
            continue
        if key in _SCHEDULE and old["train.lr_schedule"] != "constant" and not old["train.lr_decay_steps"]:
            warnings.append(
                f"{key}: {before} became {value}; the {old['train.lr_schedule']} schedule is recomputed for the new length, so this run is no "
                "longer the one that would have had it from the start."
            )
        if _open(key, value, explicit):
            moved = new["device"] not in ("auto", old["device"])
            if key == "compile" and moved:
                continue  # another device decides anew
            packed = key == "tokens.path" and not _by_flag(explicit, "corpus.paths", "corpus.sources", "corpus.builtin")
            moved = moved or stored_world_size(checkpoint) != ranks_from_environment().world_size
            own = key in ("precision", "compile", "device") or (key == "train.num_threads" and not moved)
            if own or packed or not _may_change(key):
                result = _replace(result, key, before)
        elif not _may_change(key):
            wrong.append(f"{key} is {before!r} there and {value!r} now")
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise FangcunError(
            f"{checkpoint.parent.parent} holds a run with other settings: {'; '.join(wrong[:3])}{more}. A run is never "
            "overwritten: use the old value to go on with it, or --out NEW for a new run."
        )
    return result, warnings


def _with_steps(changes: dict[str, Any] | None) -> dict[int, Any] | None:
    """mix.changes as a recipe holds it: JSON has made text of its keys."""
    return None if changes is None else {int(step): shares for step, shares in changes.items()}


def _by_flag(explicit: Mapping[str, str], *keys: str) -> bool:
    return any(explicit.get(key, "").startswith("--") for key in keys)


def _may_change(key: str) -> bool:
    return any(key == k or (k.endswith(".") and key.startswith(k)) for k in MAY_CHANGE)


def _open(key: str, value: Any, explicit: Mapping[str, str]) -> bool:
    """Whether the user left the choice to the program."""
    if value == "auto":
        return True
    # Nulls of the model are filled in when a run begins, so there they are no difference.
    return value is None and (key not in explicit or key.startswith("model."))


def check_tokens(checkpoint: Path, tokens_fingerprint: str) -> None:
    """Raise FangcunError when `checkpoint` was trained on other tokens than those at hand."""
    parents: Mapping[str, str] = read_manifest(checkpoint, "checkpoint").parents
    if parents.get("tokens") != tokens_fingerprint:
        raise FangcunError(
            f"{checkpoint} was trained on other tokens than there are now (the text or the tokenizer changed). "
            "Put them back to go on with it, or start from its weights: --init_from CHECKPOINT --out NEW."
        )


def choose_checkpoint(run: Path, resume: bool | str) -> Path | None:
    """The checkpoint to go on from, or None to begin. Raises FangcunError when `resume` asks for what is not there."""
    kept = list_checkpoints(run)
    refuse_taken_in(run)
    if resume == "auto":
        return _newest(kept) if kept else None
    if resume is True:
        if not kept:
            raise FangcunError(f"resume: true, but {run} has no checkpoint. Use --resume auto to begin a new run.")
        return _newest(kept)
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
    if was_taken_in(folder):
        raise FangcunError(
            f"resume: {folder} is a model that was taken in; there is no training to go on with. Start from its weights: "
            f"--init_from {folder} --out NEW."
        )
    if kept and folder.resolve() != kept[-1].resolve():
        if read_manifest(kept[-1], "checkpoint").settings.get("resumed_from") == str(folder.resolve()):
            return kept[-1]  # the same command again: the run that began there has gone on
        older = folder.resolve().parent == kept[-1].resolve().parent
        raise FangcunError(
            f"resume: {folder} is {'older than' if older else 'not of the same run as'} {kept[-1]}, which going on would "
            f"overwrite. Use --resume auto, or --out NEW with --resume {folder}."
        )
    return folder


def _newest(kept: list[Path]) -> Path:
    try:
        read_manifest(kept[-1], "checkpoint")
    except FangcunError as error:
        other = f" Move {kept[-1]} away to go on from {kept[-2].name}." if len(kept) > 1 else ""
        raise FangcunError(f"{error}{other}") from None
    return kept[-1]


def resumed_from(run: Path, start: Path | None) -> str | None:
    """The checkpoint of another run that this one began with, to be kept in its own checkpoints."""
    if start is None:
        return None
    if start.resolve().parent.parent != run.resolve():
        return str(start.resolve())
    return read_manifest(start, "checkpoint").settings.get("resumed_from")


def resume_to_record(run: Path, resume: bool | str) -> str:
    """What the run's recipe.yaml says of `resume`: auto, or the foreign checkpoint while the run has none of its own."""
    foreign = isinstance(resume, str) and resume != "auto" and not list_checkpoints(run)
    return str(resume) if foreign else "auto"
