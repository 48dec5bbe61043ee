"""The training loop: step, log, evaluate, sample, save, until a stop condition or a signal.

After every step the order is fixed (log, evaluation, samples, save), so that what a checkpoint's step owes to the logs
is in them before the checkpoint stands. A run that dies goes on from its newest checkpoint as if nothing had happened.
Every rank runs this loop and takes the same turns: what they decide on, they have exchanged.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fangcun.artifacts import list_checkpoints
from fangcun.config import Recipe
from fangcun.errors import FangcunError, OutOfReachError
from fangcun.model import Transformer
from fangcun.tokenizer import Tokenizer
from fangcun.tokens import Batches, TokenSplit
from fangcun.training.checkpoint import Progress, remove_checkpoints, restore_checkpoint
from fangcun.training.diagnostics import UpdateRatio
from fangcun.training.evaluator import Evaluator
from fangcun.training.guard import Guard
from fangcun.training.interrupt import Stop
from fangcun.training.limits import Horizon
from fangcun.training.metrics import memory_bytes
from fangcun.training.parallel import Parallel
from fangcun.training.precision import Compute
from fangcun.training.prefetch import Prefetch
from fangcun.training.reporter import Reporter
from fangcun.training.saving import Saver
from fangcun.training.schedules import learning_rate
from fangcun.training.step import StepResult, seed_of, train_step

_LOWEST_SCALE = 1e-3
"""A gradient scale below this means that every step overflows: nothing is learnt any more."""
_MOST_ROLLBACKS = 3
"""Rollbacks without a new checkpoint in between, before the run gives up."""


@dataclass
class Meter:
    """Sums since the last line of the log. Bytes and waiting are this rank's, the rest is all ranks'."""

    started: float = field(default_factory=time.perf_counter)
    waited_seconds: float = 0.0
    paused_seconds: float = 0.0
    saving_seconds: float = 0.0
    n_targets: int = 0
    n_bytes: int = 0
    loss_sum: float = 0.0


class Stopped(Exception):  # noqa: N818  (no error: a signal came during an evaluation)
    """Unwinds an evaluation or a sample; what it was to find is found when the run goes on."""


class Trainer:
    """Everything one run needs, and `fit`, which trains it to its end."""

    def __init__(
        self,
        recipe: Recipe,
        run: Path,
        *,
        model: Transformer,
        parallel: Parallel,
        optimizers: list[torch.optim.Optimizer],
        tokenizer: Tokenizer,
        batches: Batches,
        val: TokenSplit,
        compute: Compute,
        horizon: Horizon,
        progress: Progress,
        parents: dict[str, str],
        settings: dict[str, Any],
        prompts: list[str],
        reporter: Reporter,
        stop: Stop,
        micro_batch_size: int,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        self.recipe, self.run, self.model, self.parallel, self.optimizers = recipe, run, model, parallel, optimizers
        self.ranks, self.compute, self.horizon, self.progress = parallel.ranks, compute, horizon, progress
        self.scaler, self.reporter, self.stop, self.micro_batch_size = scaler, reporter, stop, micro_batch_size
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        block_size = recipe.train.max_seq_length or model.config.block_size
        self.batches = batches
        self.prefetch = Prefetch(self.batches.fetch, compute.device)
        self.guard = Guard(recipe.guard)
        if progress.guard:
            self.guard.restore(progress.guard)
        self.update_ratio = UpdateRatio(model, self.ranks)
        # The number of windows was fixed when the run began: another micro-batch must not change what is measured.
        self.evaluator = Evaluator(
            recipe, model=model, parallel=parallel, compute=compute, tokenizer=tokenizer, train=batches.split, val=val,
            n_windows=settings["eval_windows"], block_size=block_size, prompts=prompts, reporter=reporter,
            pause=self._leave_if_stopped,
        )  # fmt: skip
        self.saver = Saver(
            run, model=model, optimizers=optimizers, tokenizer=tokenizer, settings=settings, parents=parents,
            config=recipe.checkpoint, parallel=parallel,
        )  # fmt: skip
        self._clock = time.perf_counter()
        self._meter = Meter()
        self._stopping = False
        self._tried: list[Path] = []

    # ------------------------------------------------------------------ the loop

    def fit(self) -> bool:
        """Train until the end; True when the run is finished, False when a signal ended it early (all saved)."""
        self._clock = time.perf_counter()
        self._begin = (self.progress.step, time.perf_counter())
        self._stopping = self.ranks.sums(self.stop.requested)[0] > 0
        self.model.train()
        try:
            while True:
                finished = self._finished()
                owed = not self.progress.settled or (finished and not self.progress.finished)
                if owed and not self._must_stop():
                    self._settle(finished)
                if finished and self.progress.finished:
                    self.saver.wait()
                    return True
                if self._must_stop():
                    self._save()
                    self.saver.wait()
                    return False
                self._step()
        except OutOfReachError:
            if self.ranks.world_size == 1 and self.progress.step:  # several ranks cannot agree on it any more
                self._save()
                self.saver.wait()
            raise
        finally:
            self.prefetch.close()
            self.reporter.close()

    def _must_stop(self) -> bool:
        """Whether to end here. Several ranks have to agree, which they do once a step."""
        return self.stop.requested if self.ranks.world_size == 1 else self._stopping

    def _settle(self, finished: bool) -> None:
        """Evaluation, samples and saving that are due after a step; a signal in between leaves them for later."""
        best = self.progress.best_val_loss
        try:
            improved = self._evaluate_and_sample(finished)
        except (Stopped, OutOfReachError) as error:
            self.progress.val_loss, self.progress.best_val_loss = None, best
            if isinstance(error, OutOfReachError):
                raise
            return
        self.progress.settled, self.progress.finished = True, finished
        if self._due(self.recipe.train.save_interval) or finished or improved:
            self._save()

    def _finished(self) -> bool:
        last, limit = self.horizon.last_step, self.recipe.train.max_time
        if last is not None and self.progress.step >= last:
            return True
        if limit is None or self.progress.step == 0:
            return False
        # The first rank's clock counts for all.
        return self.ranks.sums(self._tick() if self.ranks.is_first else 0.0)[0] >= limit

    def _tick(self) -> float:
        """Seconds of the run so far, over all its parts."""
        now = time.perf_counter()
        self.progress.seconds += now - self._clock
        self._clock = now
        return self.progress.seconds

    def _step(self) -> None:
        train, progress = self.recipe.train, self.progress
        inputs, targets = self._fetch()
        rate = learning_rate(
            progress.step,
            schedule=train.lr_schedule,
            peak=self.recipe.optimizer.lr,
            minimum=train.min_lr,
            warmup_steps=self.horizon.warmup_steps,
            decay_steps=self.horizon.decay_steps,
            decay_share=train.lr_decay_share,
            decay_shape=train.lr_decay_shape,
        )
        config = self.model.config
        noisy = config.dropout > 0 or config.attention_dropout > 0
        logged = self._logs_at(progress.step + 1)
        if logged:
            self.update_ratio.before()
        result = train_step(
            self.parallel,
            self.parameters,
            self.optimizers,
            inputs,
            targets,
            rate=rate,
            micro_batch_size=self.micro_batch_size,
            max_norm=train.max_norm,
            compute=self.compute,
            # Alone, the step counts what it is given; ranks see a part each.
            n_targets=None
            if self.ranks.world_size == 1
            else self.batches.count_targets(progress.samples, train.global_batch_size),
            dropout_seed=seed_of(self.recipe.seed, "dropout", progress.samples) if noisy else None,
            scaler=self.scaler,
            approve=self._approve,
            stop=self.stop.requested,
        )
        progress.step += 1
        progress.samples += train.global_batch_size
        progress.tokens += result.n_targets
        progress.settled = progress.finished = False
        progress.val_loss = None
        self._stopping = result.stop
        self._log(result, targets, rate, logged)
        if not result.applied:
            self._tell_skip()
        if self.saver.failed:
            self.saver.wait()

    def _fetch(self) -> tuple[Tensor, Tensor]:
        """This rank's part of the next global batch; the one after it is fetched while the step runs."""
        asked = time.perf_counter()
        step_samples = self.recipe.train.global_batch_size
        count = step_samples // self.ranks.world_size
        first = self.progress.samples + self.ranks.rank * count
        last = self.progress.step + 1 == self.horizon.last_step
        batch = self.prefetch.get(first, count, then=None if last else first + step_samples)
        self._meter.waited_seconds += time.perf_counter() - asked
        return batch

    def _leave_if_stopped(self) -> None:
        """Between the pieces of an evaluation or a sample: a signal need not wait for all of it, where one rank is alone."""
        if self.ranks.world_size == 1 and self.stop.requested:
            raise Stopped

    # ------------------------------------------------------------------ bad steps

    def _approve(self, loss: float, norm: float) -> bool:
        # Under fp16 the scaler skips a step whose gradients overflow, and lowers its scale; that is no failure.
        scaled = self.scaler is not None and self.scaler.get_scale() > _LOWEST_SCALE
        return self.guard.approve(loss, norm, norm_may_overflow=scaled)

    def _tell_skip(self) -> None:
        step, reason = self.progress.step, self.guard.reason
        self.reporter.record({"kind": "skip", "step": step, "reason": reason, "samples": self.progress.samples})
        self.reporter.warn(f"step {step} skipped: {reason}.")
        if self.guard.wants_rollback:
            self._roll_back(reason)

    def _roll_back(self, reason: str) -> None:
        """Weights and optimizer of the last good checkpoint, and the samples after those that went wrong.

        The newest one is taken for good until the first step after it is bad: then the one before it is tried.
        """
        self.saver.wait()
        step, samples = self.progress.step, self.progress.samples
        at_once = bool(self._tried) and not self.guard.approved_since_rollback
        kept = [f for f in self.ranks.from_first(list_checkpoints(self.run)) if not at_once or f not in self._tried]
        where = f"step {step}: {reason}, for {self.guard.bad_in_a_row} steps in a row"
        advice = "Try a lower --optimizer.lr, a longer --train.lr_warmup_steps or --precision 32-true, in a new folder (--out NEW)."
        if not kept:
            tried = f"the checkpoints tried ({', '.join(f.name for f in self._tried)}) are no better" if at_once else ""
            raise FangcunError(f"{where}; {tried or 'no checkpoint was written before it'}. {advice}")
        if len(self._tried) >= _MOST_ROLLBACKS:
            raise FangcunError(
                f"{where}, after {_MOST_ROLLBACKS} returns to a checkpoint; the last good one is {kept[-1]}. {advice}"
            )
        good = kept[-1]
        progress = restore_checkpoint(good, self.model, self.optimizers)
        self.parallel.refresh()
        self._tried.append(good)
        if self.ranks.is_first:
            remove_checkpoints([f for f in list_checkpoints(self.run) if f.name > good.name])
        self.guard.roll_back(progress.guard)
        progress.samples, progress.seconds = samples, self._tick()
        self.progress = progress
        if self.scaler and progress.scaler:
            self.scaler.load_state_dict(progress.scaler)
        self.reporter.rewind(progress.step)
        self.reporter.record(
            {"kind": "rollback", "step": progress.step, "from_step": step, "reason": reason, "samples": samples}
        )
        self.reporter.warn(f"back from step {step} to {good.name}, and past the samples up to number {samples:,}.")
        self._meter = Meter()

    # ------------------------------------------------------------------ logging

    def _logs_at(self, step: int) -> bool:
        return step % self.recipe.train.log_interval == 0 or step == self.horizon.last_step

    def _log(self, result: StepResult, targets: Tensor, rate: float, logged: bool) -> None:
        meter, progress, last = self._meter, self.progress, self.horizon.last_step
        meter.n_targets += result.n_targets
        meter.n_bytes += int(self.evaluator.token_bytes[targets.clamp(min=0)][targets >= 0].sum())
        meter.loss_sum += result.loss_sum
        update_ratio = self.update_ratio.after() if logged else None
        if not (logged or self._must_stop()):
            return
        now = time.perf_counter()
        seconds = max(1e-9, now - meter.started - meter.paused_seconds)
        n_bytes = self.ranks.sums(meter.n_bytes)[0]
        record = {
            "kind": "train",
            "step": progress.step,
            "loss": meter.loss_sum / max(1, meter.n_targets),
            "bits_per_byte": meter.loss_sum / math.log(2) / n_bytes if n_bytes else None,
            "lr": rate,
            "grad_norm": result.grad_norm,
            "update_ratio": update_ratio,
            "tokens": progress.tokens,
            "tokens_per_second": meter.n_targets / seconds,
            "data_wait_share": meter.waited_seconds / seconds,
            "saving_seconds": meter.saving_seconds,
            "memory_bytes": memory_bytes(self.compute.device),
            "seconds": self._tick(),
        }
        self.reporter.record(record)
        eta = None
        if last is not None:
            done = progress.step - self._begin[0]
            eta = (now - self._begin[1]) / max(1, done) * (last - progress.step)
        self.reporter.status(record, last, eta)
        self._meter = Meter(started=now)

    # ------------------------------------------------------------------ evaluation, samples, saving

    def _evaluate_and_sample(self, finished: bool) -> bool:
        """What is due at this step; True when the validation loss is the best so far and is to be kept."""
        started = time.perf_counter()
        config, samples, progress = self.recipe.eval, self.recipe.samples, self.progress
        improved = False
        # The end is measured as the beginning was, so that the two can be compared, and then on all of the split.
        ends = finished and config.final_validation
        self._tick()
        if self._due(config.interval) or ends or (progress.step == 0 and config.initial_validation):
            improved = self.evaluator.evaluate(progress)
        if ends:
            self.evaluator.evaluate_finally(progress)
        if samples.max_new_tokens and (self._due(samples.interval) or finished):
            self.evaluator.write_samples(progress)
        self._meter.paused_seconds += time.perf_counter() - started
        return improved and progress.step > 0 and self.recipe.checkpoint.keep_best

    def _due(self, interval: int | None) -> bool:
        return interval is not None and self.progress.step > 0 and self.progress.step % interval == 0

    def _save(self) -> None:
        if self.guard.bad_in_a_row and not self.progress.finished:
            return  # the weights may be what is wrong; the last good checkpoint stands
        started = time.perf_counter()
        self._tick()
        self.progress.scaler = self.scaler.state_dict() if self.scaler else None
        self.progress.guard = self.guard.state()
        self.reporter.sync()
        self.saver.save(self.progress)
        if self.guard.approved_since_rollback:
            self._tried = []
        took = time.perf_counter() - started
        self._meter.paused_seconds += took
        self._meter.saving_seconds += took
