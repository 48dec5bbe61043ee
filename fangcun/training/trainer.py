"""The training loop: step, log, evaluate, sample, save, until a stop condition or a signal.

After every step the order is fixed (log, evaluation, samples, save), so that what a checkpoint's step owes to the logs
is in them before the checkpoint stands. A run that dies goes on from its newest checkpoint as if nothing had happened.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fangcun.artifacts import list_checkpoints
from fangcun.config import Recipe
from fangcun.console import Console, format_status
from fangcun.errors import FangcunError
from fangcun.evaluation import evaluate_windows
from fangcun.generation import LanguageModel
from fangcun.model import Transformer
from fangcun.tokenizer import Tokenizer
from fangcun.tokens import Batches, TokenSplit, fixed_windows
from fangcun.training.checkpoint import Progress, prune_checkpoints, save_checkpoint
from fangcun.training.interrupt import Stop
from fangcun.training.limits import Horizon
from fangcun.training.metrics import StepLog, memory_bytes
from fangcun.training.precision import Compute
from fangcun.training.schedules import learning_rate
from fangcun.training.step import StepResult, seed_of, train_step
from fangcun.training.trackers import open_trackers, send

_LOWEST_SCALE = 1e-3
"""A gradient scale below this means that every step overflows: nothing is learnt any more."""


@dataclass
class Meter:
    """Sums since the last line of the log."""

    started: float = field(default_factory=time.perf_counter)
    waited_seconds: float = 0.0
    paused_seconds: float = 0.0
    steps: int = 0
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
        optimizers: list[torch.optim.Optimizer],
        tokenizer: Tokenizer,
        train: TokenSplit,
        val: TokenSplit,
        compute: Compute,
        horizon: Horizon,
        progress: Progress,
        parents: dict[str, str],
        settings: dict[str, Any],
        prompts: list[str],
        console: Console,
        stop: Stop,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        self.recipe, self.run, self.model, self.optimizers, self.tokenizer = recipe, run, model, optimizers, tokenizer
        self.compute, self.horizon, self.progress, self.scaler = compute, horizon, progress, scaler
        self.train_split, self.val_split = train, val
        self.parents, self.settings, self.prompts, self.console, self.stop = parents, settings, prompts, console, stop
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.forward: Callable[[Tensor], Tensor] = torch.compile(model) if compute.compile else model
        self.block_size = recipe.train.max_seq_length or model.config.block_size
        self.batches = Batches(train, self.block_size, recipe.seed)
        self.token_bytes = torch.tensor(tokenizer.token_bytes(), dtype=torch.int64)
        # Fixed when the run began: another micro-batch must not change what is measured.
        self.val_windows = fixed_windows(val, self.block_size, settings["eval_windows"])
        self.train_windows = fixed_windows(train, self.block_size, settings["eval_windows"])
        resumed = progress.step if progress.step or list_checkpoints(run) else -1
        self.metrics = StepLog(run / "metrics.jsonl", resume_step=resumed, drop_evaluations=not progress.settled)
        self.samples = StepLog(run / "samples.jsonl", resume_step=resumed, drop_evaluations=not progress.settled)
        self.trackers = open_trackers(
            recipe.trackers,
            run,
            title=run.resolve().name,
            settings=settings["recipe"],
            resume_step=resumed,
            warn=console.warn,
        )
        for tracker in self.trackers:
            console.say(f"tracker    {tracker.hint}")
        self._clock = time.perf_counter()
        self._meter = Meter()

    # ------------------------------------------------------------------ the loop

    def fit(self) -> bool:
        """Train until the end; True when the run is finished, False when a signal ended it early (all saved)."""
        self._clock = time.perf_counter()
        self._begin = (self.progress.step, time.perf_counter())
        self.model.train()
        try:
            while True:
                finished = self._finished()
                owed = not self.progress.settled or (finished and not self.progress.finished)
                if owed and not self.stop.requested:
                    self._settle(finished)
                if finished and self.progress.finished:
                    return True
                if self.stop.requested:
                    self._save()
                    return False
                self._step()
        finally:
            self.metrics.close()
            self.samples.close()
            for tracker in self.trackers:
                tracker.finish()

    def _settle(self, finished: bool) -> None:
        """Evaluation, samples and saving that are due after a step; a signal in between leaves them for later."""
        best = self.progress.best_val_loss
        try:
            improved = self._evaluate_and_sample(finished)
        except Stopped:
            self.progress.val_loss, self.progress.best_val_loss = None, best
            return
        self.progress.settled, self.progress.finished = True, finished
        if self._save_due() or finished or improved:
            self._save()

    def _finished(self) -> bool:
        last, limit = self.horizon.last_step, self.recipe.train.max_time
        return (last is not None and self.progress.step >= last) or (
            limit is not None and self._tick() >= limit and self.progress.step > 0
        )

    def _tick(self) -> float:
        """Seconds of the run so far, over all its parts."""
        now = time.perf_counter()
        self.progress.seconds += now - self._clock
        self._clock = now
        return self.progress.seconds

    def _step(self) -> None:
        train = self.recipe.train
        asked = time.perf_counter()
        inputs, targets = self.batches.fetch(self.progress.samples, train.global_batch_size)
        self._meter.waited_seconds += time.perf_counter() - asked
        rate = learning_rate(
            self.progress.step,
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
        result = train_step(
            self.forward,
            self.parameters,
            self.optimizers,
            inputs,
            targets,
            rate=rate,
            micro_batch_size=train.micro_batch_size,
            max_norm=train.max_norm,
            compute=self.compute,
            dropout_seed=seed_of(self.recipe.seed, "dropout", self.progress.samples) if noisy else None,
            scaler=self.scaler,
        )
        self.progress.step += 1
        self.progress.samples += train.global_batch_size
        self.progress.tokens += result.n_targets
        self.progress.settled = self.progress.finished = False
        self.progress.val_loss = None
        self._log(result, targets, rate)

    def _leave_if_stopped(self) -> None:
        """Between the pieces of an evaluation or a sample: a signal need not wait for all of it."""
        if self.stop.requested:
            raise Stopped

    # ------------------------------------------------------------------ logging and the guard

    def _log(self, result: StepResult, targets: Tensor, rate: float) -> None:
        meter, progress = self._meter, self.progress
        loss_sum = float(result.loss_sum)
        # Under fp16 the scaler skips a step whose gradients overflow; that is no failure.
        norm = 0.0 if self.scaler and self.scaler.get_scale() > _LOWEST_SCALE else float(result.grad_norm)
        if not (math.isfinite(loss_sum) and math.isfinite(norm)):
            self._refuse_non_finite(loss_sum / max(1, result.n_targets), norm)
        meter.steps += 1
        meter.n_targets += result.n_targets
        meter.n_bytes += int(self.token_bytes[targets.clamp(min=0)][targets >= 0].sum())
        meter.loss_sum += loss_sum
        last = self.horizon.last_step
        if progress.step % self.recipe.train.log_interval and progress.step != last and not self.stop.requested:
            return
        now = time.perf_counter()
        seconds = max(1e-9, now - meter.started - meter.paused_seconds)
        loss = meter.loss_sum / max(1, meter.n_targets)
        record = {
            "kind": "train",
            "step": progress.step,
            "loss": loss,
            "bits_per_byte": meter.loss_sum / math.log(2) / meter.n_bytes if meter.n_bytes else None,
            "lr": rate,
            "grad_norm": float(result.grad_norm),
            "tokens": progress.tokens,
            "tokens_per_second": meter.n_targets / seconds,
            "data_wait_share": meter.waited_seconds / seconds,
            "memory_bytes": memory_bytes(self.compute.device),
            "seconds": self._tick(),
        }
        self._record(self.metrics, record)
        eta = None
        if last is not None:
            done = progress.step - self._begin[0]
            eta = (now - self._begin[1]) / max(1, done) * (last - progress.step)
        self.console.status(format_status(record, last_step=last, eta_seconds=eta))
        self._meter = Meter(started=now)

    def _record(self, log: StepLog, record: dict[str, Any]) -> None:
        """To the run's own file first: it is the truth, the trackers are views of it."""
        log.write(record)
        send(self.trackers, record)

    def _refuse_non_finite(self, loss: float, norm: float) -> None:
        kept = list_checkpoints(self.run)
        good = f"the last good checkpoint is {kept[-1]}" if kept else "no checkpoint was written before it"
        raise FangcunError(
            f"step {self.progress.step}: loss {loss:.4g}, gradient norm {norm:.4g} is not finite; {good}. "
            "Try a lower --optimizer.lr, a longer --train.lr_warmup_steps or --precision 32-true, in a new folder (--out NEW)."
        )

    # ------------------------------------------------------------------ evaluation and samples

    def _evaluate_and_sample(self, finished: bool) -> bool:
        """What is due at this step; True when the validation loss is the best so far."""
        started = time.perf_counter()
        config, samples, step = self.recipe.eval, self.recipe.samples, self.progress.step
        improved = False
        # The end is measured as the beginning was, so that the two can be compared, and then on all of the split.
        ends = finished and config.final_validation
        if self._due(config.interval) or ends or (step == 0 and config.initial_validation):
            improved = self._evaluate()
        if ends:
            self._evaluate_finally()
        if self.prompts and samples.max_new_tokens and ((step and self._due(samples.interval)) or finished):
            self._write_samples()
        self._meter.paused_seconds += time.perf_counter() - started
        return improved and step > 0 and self.recipe.checkpoint.keep_best

    def _due(self, interval: int | None) -> bool:
        return interval is not None and self.progress.step > 0 and self.progress.step % interval == 0

    def _measure(self, split: TokenSplit, windows: list) -> dict[str, Any]:
        result = evaluate_windows(
            self.model,
            split,
            windows,
            batch_size=self.recipe.train.micro_batch_size,
            token_bytes=self.token_bytes,
            device=self.compute.device,
            autocast=self.compute.autocast(),
            before_batch=self._leave_if_stopped,
        )
        return {
            "loss": result.loss,
            "perplexity": result.perplexity,
            "bits_per_byte": result.bits_per_byte,
            "comparable": result.comparable,
        }

    def _evaluate(self) -> bool:
        record: dict[str, Any] = {"kind": "eval", "step": self.progress.step, "tokens": self.progress.tokens}
        record |= {f"train_{k}": v for k, v in self._measure(self.train_split, self.train_windows).items()}
        improved = False
        if self.val_windows:
            measured = self._measure(self.val_split, self.val_windows)
            record |= {f"val_{k}": v for k, v in measured.items()}
            loss = self.progress.val_loss = measured["loss"]
            best = self.progress.best_val_loss
            if loss is not None and (best is None or loss < best):
                self.progress.best_val_loss, improved = loss, True
        self._record(self.metrics, record | {"seconds": self._tick()})
        self._say_evaluation("eval", record)
        return improved

    def _evaluate_finally(self) -> None:
        limit = self.recipe.eval.final_max_iters
        count = None if limit is None else limit * self.settings["eval_windows"] // self.recipe.eval.max_iters
        windows = fixed_windows(self.val_split, self.block_size, count)
        if not windows:
            return
        record: dict[str, Any] = {"kind": "final", "step": self.progress.step, "tokens": self.progress.tokens}
        record |= {f"val_{k}": v for k, v in self._measure(self.val_split, windows).items()}
        self._record(self.metrics, record | {"seconds": self._tick()})
        self._say_evaluation("final", record)

    def _say_evaluation(self, label: str, record: dict[str, Any]) -> None:
        parts = [f"{label} at step {record['step']}:"]
        for split in ("train", "val"):
            if record.get(f"{split}_loss") is not None:
                bits = record[f"{split}_bits_per_byte"]
                mark = "" if record[f"{split}_comparable"] else " (not comparable)"
                bits_text = f", {bits:.4f} bits/byte{mark}" if bits is not None else ""
                parts.append(f"{split} loss {record[f'{split}_loss']:.4f}{bits_text}")
        self.console.say("  ".join(parts))

    def _write_samples(self) -> None:
        config, step = self.recipe.samples, self.progress.step
        writer = LanguageModel(self.model, self.tokenizer)
        for number, prompt in enumerate(self.prompts):
            pieces = writer.stream(
                prompt,
                max_new_tokens=config.max_new_tokens,
                temperature=config.temperature,
                top_k=config.top_k,
                top_p=config.top_p,
                repetition_penalty=config.repetition_penalty,
                seed=seed_of(self.recipe.seed, "sample", step, number),
            )
            text = ""
            for piece in pieces:
                self._leave_if_stopped()
                text += piece
            self._record(self.samples, {"kind": "sample", "step": step, "prompt": prompt, "text": text})
            if number == 0:
                self.console.say(f"  {prompt}▸{text[:80]}".replace("\n", "⏎"))
        self.model.train()

    # ------------------------------------------------------------------ saving

    def _save_due(self) -> bool:
        return self._due(self.recipe.train.save_interval)

    def _save(self) -> None:
        started = time.perf_counter()
        self._tick()
        if self.scaler:
            self.progress.scaler = self.scaler.state_dict()
        self.metrics.sync()
        self.samples.sync()
        save_checkpoint(
            self.run,
            self.progress,
            model=self.model,
            optimizers=self.optimizers,
            tokenizer=self.tokenizer,
            settings=self.settings,
            parents=self.parents,
        )
        prune_checkpoints(
            self.run, keep_last=self.recipe.checkpoint.keep_last, keep_best=self.recipe.checkpoint.keep_best
        )
        self._meter.paused_seconds += time.perf_counter() - started
