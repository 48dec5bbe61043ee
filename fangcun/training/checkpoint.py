"""Saving and restoring a run: a Hugging Face folder with a `training_state/` beside the weights.

No pickle: tensors are safetensors, the rest is JSON. The fp32 master weights are `model.safetensors` itself. The random
state needs no saving: dropout and samples are seeded by (seed, position in the data), so one number, the samples
consumed, restores them. `saving.py` decides when and from which rank what is written.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fangcun.artifacts import MANIFEST, list_checkpoints, read_manifest
from fangcun.errors import FangcunError
from fangcun.model import Transformer, load_model, load_weights, save_model, write_tensors
from fangcun.tokenizer import Tokenizer
from fangcun.training.optimizer_state import WHOLE_FILE, placed_like, read_optimizer_state, restore_optimizers
from fangcun.training.tensors import is_sharded

STATE_FOLDER = "training_state"


@dataclass
class Progress:
    """Where a run stands, between two optimizer steps."""

    step: int = 0
    """Optimizer steps done."""
    samples: int = 0
    """Windows consumed: the data cursor."""
    tokens: int = 0
    """Target tokens trained on."""
    seconds: float = 0.0
    """Wall time of training, evaluation and saving included, over all parts of the run."""
    val_loss: float | None = None
    """Validation loss measured at this very step, in nats a token; None when it was not."""
    settled: bool = False
    """Whether the evaluation and samples due at this step were made."""
    finished: bool = False
    """Whether the run had met its stop condition, and its end was evaluated."""
    best_val_loss: float | None = None
    """Lowest validation loss so far."""
    scaler: dict[str, Any] | None = None
    """State of the gradient scaler under 16-mixed."""
    guard: dict[str, Any] | None = None
    """Memory of the guard against bad steps."""


def bytes_needed(model: Transformer) -> int:
    """Disk space of one checkpoint: fp32 weights and two moments, and a little for the rest."""
    return sum(p.numel() for p in model.parameters()) * 12 + 16 * 2**20


def check_disk_space(folder: Path, needed_bytes: int) -> None:
    """Raise FangcunError when the disk of `folder` has less than `needed_bytes` free."""
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise FangcunError(
            f"no room for a checkpoint: {folder} has {free_bytes / 2**20:,.0f} MiB free, one takes "
            f"{needed_bytes / 2**20:,.0f} MiB. Free some space and run the same command again: it goes on from "
            f"{_newest_name(folder)}."
        )


def _newest_name(checkpoints: Path) -> str:
    kept = list_checkpoints(checkpoints.parent)
    return str(kept[-1]) if kept else "the start (no checkpoint was written yet)"


def stands(folder: Path, progress: Progress) -> bool:
    """Whether `folder` is that checkpoint already. One that a signal cut short of its evaluation is to be replaced."""
    if not (folder / MANIFEST).is_file():
        return False
    there = read_progress(folder)
    return there.settled and there.finished == progress.finished


def fill_checkpoint(
    temporary: Path,
    progress: Progress,
    *,
    model: Transformer,
    tokenizer: Tokenizer,
    weights: Mapping[str, Tensor] | None,
    optimizer: Mapping[str, Tensor] | None,
) -> None:
    """Write the files of a checkpoint: the Hugging Face folder, and where training stood.

    weights: the model's, where a copy or a gathered one is to be written. optimizer: its state; None: the ranks write it.
    """
    save_model(
        model,
        temporary,
        eos_id=tokenizer.eos_id,
        pad_id=tokenizer.pad_id,
        bos_id=tokenizer.bos_id,
        vocab_size=tokenizer.vocab_size,
        state=weights,
    )
    tokenizer.save(temporary)
    state = temporary / STATE_FOLDER
    state.mkdir(exist_ok=True)
    if optimizer is not None:
        write_tensors(optimizer, state / WHOLE_FILE)
    (state / "progress.json").write_text(json.dumps(dataclasses.asdict(progress), indent=1), encoding="utf-8")


def read_progress(folder: Path) -> Progress:
    """Where the run stood when `folder` was saved. Raises FangcunError when it is no checkpoint of a run."""
    read_manifest(folder, "checkpoint")
    file = folder / STATE_FOLDER / "progress.json"
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        return Progress(**raw)
    except (OSError, ValueError, TypeError) as error:
        raise FangcunError(
            f"{file} cannot be read ({error}). Resume from another checkpoint: --resume PATH."
        ) from error


def restore_checkpoint(folder: Path, model: Transformer, optimizers: list[torch.optim.Optimizer]) -> Progress:
    """Load weights and optimizer state in place, sharded or not, and return the progress."""
    progress = read_progress(folder)
    if any(is_sharded(p) for p in model.parameters()):
        whole = load_model(folder).state_dict()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(placed_like(whole[name], parameter))
    else:
        load_weights(model, folder)
    state = read_optimizer_state(folder / STATE_FOLDER, model)
    if state or progress.step:  # before the first step an optimizer has none
        restore_optimizers(model, optimizers, state)
    return progress


def prune_checkpoints(run: Path, *, keep_last: int, keep_best: bool) -> list[Path]:
    """Delete all but the newest `keep_last` checkpoints and the one with the lowest validation loss; return the deleted."""
    folders = list_checkpoints(run)
    kept = set(folders[-keep_last:])
    if keep_best:
        losses = {
            f: json.loads((f / "manifest.json").read_text(encoding="utf-8"))["counts"]["val_loss"] for f in folders
        }
        measured = [f for f in folders if losses[f] is not None]
        if measured:
            kept.add(min(measured, key=lambda f: losses[f]))
    return remove_checkpoints([f for f in folders if f not in kept])


def remove_checkpoints(doomed: list[Path]) -> list[Path]:
    """Delete checkpoints, and return them."""
    for folder in doomed:
        # Renamed first: a half-deleted checkpoint must never look like a whole one.
        aside = folder.with_name(f"{folder.name}.tmp-old")
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
    return doomed
