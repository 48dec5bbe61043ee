"""Writes a run's checkpoints, beside the training: from a copy in memory, by a thread, one at a time.

Where each rank holds the whole model the first one writes. Where the model is sharded the weights are gathered for the
Hugging Face folder, and every rank writes its part of the optimizer's state (torch.distributed.checkpoint, as
safetensors). Either way the folder gets its name when all of it is on the disk.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from fangcun.artifacts import Manifest, checkpoint_name, write_artifact
from fangcun.config import CheckpointConfig
from fangcun.model import Transformer
from fangcun.tokenizer import Tokenizer
from fangcun.training.checkpoint import (
    STATE_FOLDER,
    Progress,
    bytes_needed,
    check_disk_space,
    fill_checkpoint,
    prune_checkpoints,
    stands,
)
from fangcun.training.optimizer_state import SHARDS_FOLDER, optimizer_entries, optimizer_tensors
from fangcun.training.parallel import Parallel, whole_state


class Saver:
    """Saves when told to; `wait` ends what is under way and raises what went wrong in it."""

    def __init__(
        self,
        run: Path,
        *,
        model: Transformer,
        optimizers: list[torch.optim.Optimizer],
        tokenizer: Tokenizer,
        settings: dict[str, Any],
        parents: dict[str, str],
        config: CheckpointConfig,
        parallel: Parallel,
    ) -> None:
        self.run, self.model, self.optimizers, self.tokenizer = run, model, optimizers, tokenizer
        self.settings, self.parents, self.config, self.parallel = settings, parents, config, parallel
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        # The writers' words to one another must not get between those of the training.
        self._group: Any = dist.new_group(backend="gloo") if parallel.sharded else None

    def save(self, progress: Progress) -> None:
        """Write `checkpoints/step-N`, whole or not at all. One that stands is kept. Raises FangcunError, also for the last one."""
        self.wait()
        ranks = self.parallel.ranks
        folder = self.run / "checkpoints" / checkpoint_name(progress.step)
        if self.parallel.sharded:
            if not ranks.from_first(stands(folder, progress) if ranks.is_first else None):
                self._save_sharded(folder, copy.deepcopy(progress))
        elif ranks.is_first and not stands(folder, progress):
            self._save_whole(folder, copy.deepcopy(progress))

    def wait(self) -> None:
        """Until the save under way is done. Raises what went wrong in it."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    @property
    def failed(self) -> bool:
        """Whether a save went wrong, which `wait` will raise."""
        return self._error is not None

    def _save_whole(self, folder: Path, progress: Progress) -> None:
        background = self.config.background
        opened, temporary = self._open(folder, progress)
        weights = None
        if background:
            weights = {n: t.detach().to("cpu", copy=True) for n, t in self.model.state_dict().items()}
        optimizer = optimizer_tensors(self.model, self.optimizers, copy=background)

        def write() -> None:
            with opened:
                fill_checkpoint(
                    temporary,
                    progress,
                    model=self.model,
                    tokenizer=self.tokenizer,
                    weights=weights,
                    optimizer=optimizer,
                )
            self._prune()

        self._do(write, background)

    def _save_sharded(self, folder: Path, progress: Progress) -> None:
        import torch.distributed.checkpoint as dcp

        first = self.parallel.ranks.is_first
        opened, temporary = self._open(folder, progress) if first else (contextlib.ExitStack(), folder)
        shards = Path(self.parallel.ranks.from_first(str(temporary / STATE_FOLDER / SHARDS_FOLDER)))
        weights = whole_state(self.model)
        pending: Any = dcp.async_save(
            optimizer_entries(self.model, self.optimizers),
            storage_writer=dcp.HuggingFaceStorageWriter(str(shards), save_distributed=True),
            process_group=self._group,
        )

        def write() -> None:
            with opened:
                try:
                    pending.result()  # on the first rank: of all
                except dcp.api.CheckpointException as error:
                    raise _cause(error.failures) from error
                if first:
                    fill_checkpoint(
                        temporary, progress, model=self.model, tokenizer=self.tokenizer, weights=weights, optimizer=None
                    )
            if first:
                self._prune()

        self._do(write, self.config.background)

    def _open(self, folder: Path, progress: Progress) -> tuple[contextlib.ExitStack, Path]:
        folder.parent.mkdir(exist_ok=True)
        check_disk_space(folder.parent, bytes_needed(self.model))
        counts = {"step": progress.step, "tokens": progress.tokens, "val_loss": progress.val_loss}
        manifest = Manifest("checkpoint", settings=self.settings, counts=counts, parents=self.parents)
        opened = contextlib.ExitStack()
        return opened, opened.enter_context(write_artifact(folder, manifest))

    def _prune(self) -> None:
        prune_checkpoints(self.run, keep_last=self.config.keep_last, keep_best=self.config.keep_best)

    def _do(self, write: Callable[[], None], background: bool) -> None:
        def guarded() -> None:
            try:
                write()
            except BaseException as error:
                self._error = error

        if not background:
            write()
            return
        self._thread = threading.Thread(target=guarded, name="save")
        self._thread.start()


def _cause(failures: dict[int, Any]) -> BaseException:
    """What went wrong on the ranks, as one error: a full disk before what came of it elsewhere."""
    errors = [error for _, (error, _) in sorted(failures.items())]
    return next((error for error in errors if isinstance(error, OSError)), errors[0])
