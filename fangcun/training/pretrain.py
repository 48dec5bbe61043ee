"""From tokens to a trained model: sets the run up, restores it where it stood, and lets the trainer finish it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fangcun.artifacts import read_manifest, write_text_atomic
from fangcun.config import Recipe, count_parameters, dump_recipe, resolve_model
from fangcun.console import Console
from fangcun.errors import FangcunError
from fangcun.model import Transformer, check_exportable, initialize, load_model, read_config
from fangcun.tokenizer import Tokenizer
from fangcun.tokens import Batches, TokenSplit, check_tokenizer, open_split
from fangcun.training.checkpoint import Progress, read_progress, restore_checkpoint
from fangcun.training.interrupt import stop_on_signals
from fangcun.training.limits import plan_horizon
from fangcun.training.optimizers import build_optimizers
from fangcun.training.precision import Compute, choose_compute
from fangcun.training.resume import check_tokens, choose_checkpoint, flatten, resume_to_record, resumed_from
from fangcun.training.trainer import Trainer


@dataclass
class Outcome:
    """How a call of `pretrain` ended."""

    finished: bool
    """The run reached its stop condition (now or before)."""
    trained_steps: int
    """Steps done by this call; 0 when the run was complete already."""
    exit_code: int = 0
    stopped_by: str = ""


def pretrain(
    recipe: Recipe, run: Path, *, tokens: Path, tokenizer_folder: Path, name: str, console: Console
) -> Outcome:
    """Train in `run`, going on from its newest checkpoint where there is one.

    `tokens` and `tokenizer_folder` are artefact folders. Writes `recipe.yaml` with every automatic choice made, then
    metrics, samples and checkpoints. Raises FangcunError.
    """
    tokenizer = Tokenizer.load(tokenizer_folder)
    check_tokenizer(tokens, tokenizer)
    start = choose_checkpoint(run, recipe.resume)
    train, val = open_split(tokens, "train"), open_split(tokens, "val")
    compute = choose_compute(recipe)
    progress = read_progress(start) if start else Progress()
    tokens_fingerprint = read_manifest(tokens, "tokens").fingerprint
    if start is not None:
        check_tokens(start, tokens_fingerprint)
    fresh_model = load_model(Path(recipe.init_from)) if recipe.init_from and start is None else None
    if fresh_model is not None:
        config = fresh_model.config
    elif start is not None:
        config = read_config(start)
    else:
        config = resolve_model(recipe.model, vocab_size=tokenizer.vocab_size)
    if tokenizer.vocab_size > (config.padded_vocab_size or 0):
        raise FangcunError(
            f"the tokenizer has {tokenizer.vocab_size:,} ids, the model's embedding {config.padded_vocab_size:,} rows. "
            "Use the tokenizer that belongs to init_from (--tokenizer.path)."
        )
    check_exportable(config)
    block_size = recipe.train.max_seq_length or config.block_size
    if block_size > config.block_size:
        raise FangcunError(
            f"train.max_seq_length: {block_size} is above the model's block_size of {config.block_size}. Lower it, or leave it out."
        )
    batches = Batches(train, block_size, recipe.seed)
    tokens_per_step = recipe.train.global_batch_size * batches.order.block_size
    horizon = plan_horizon(recipe.train, batches, tokens_per_step=tokens_per_step)
    for text in horizon.warnings:
        console.warn(text)
    resolved = dataclasses.replace(record_choices(recipe, compute), resume=resume_to_record(run, recipe.resume))
    if not recipe.init_from:
        resolved = dataclasses.replace(resolved, model=config)
    write_text_atomic(run / "recipe.yaml", dump_recipe(resolved, header=f"Fangcun run, from recipe {name}"))
    settings = {
        "recipe": flatten(resolved),
        "eval_windows": choose_eval_windows(recipe, start),
        "resumed_from": resumed_from(run, start),
    }
    if start is not None and read_manifest(start, "checkpoint").settings["eval_windows"] != settings["eval_windows"]:
        progress.best_val_loss = None  # losses on other windows are no measure
    if _complete(progress, start, horizon.last_step, recipe.train.max_time):
        if start is not None and start.resolve().parent.parent != run.resolve():
            raise FangcunError(
                f"resume: {start} has reached the end (step {progress.step}). Raise --train.max_steps to go on from it in {run}."
            )
        return Outcome(True, 0)
    torch.set_num_threads(compute.num_threads)
    model = fresh_model or Transformer(config)
    if fresh_model is None and start is None:
        initialize(model, recipe.seed, recipe.init)
    model.to(compute.device)
    optimizers = build_optimizers(model, recipe.optimizer)
    if start is not None:
        restore_checkpoint(start, model, optimizers)
    scaler = None
    if compute.precision == "16-mixed":
        scaler = torch.amp.GradScaler(compute.device.type)
        if progress.scaler:
            scaler.load_state_dict(progress.scaler)
    _announce(console, config, compute, train, val, batches, horizon.last_step, progress, start)
    if not val.n_tokens:
        console.warn("the validation split is empty: no validation loss, no best checkpoint.")
    with stop_on_signals() as stop:
        first = progress.step
        trainer = Trainer(
            recipe, run, model=model, optimizers=optimizers, tokenizer=tokenizer, train=train, val=val, compute=compute,
            horizon=horizon, progress=progress, parents={"tokens": tokens_fingerprint},
            settings=settings, prompts=choose_prompts(recipe, val if val.n_tokens else train, tokenizer),
            console=console, stop=stop, scaler=scaler,
        )  # fmt: skip
        finished = trainer.fit()
        if not finished:
            return Outcome(False, progress.step - first, stop.exit_code, stop.name)
    return Outcome(True, progress.step - first)


def record_choices(recipe: Recipe, compute: Compute) -> Recipe:
    """The recipe with every `auto` of device, precision, compile and threads replaced by what was chosen."""
    train = dataclasses.replace(recipe.train, num_threads=compute.num_threads)
    return dataclasses.replace(
        recipe, device=str(compute.device), precision=compute.precision, compile=compute.compile, train=train
    )


def choose_prompts(recipe: Recipe, split: TokenSplit, tokenizer: Tokenizer, *, length: int = 12) -> list[str]:
    """The recipe's prompts, or three openings: the first `length` tokens of documents (or places) spread over `split`."""
    if recipe.samples.prompts is not None:
        return list(recipe.samples.prompts)
    ends = [int(e) for e in split.document_ends]
    starts = [0, *ends[:-1]]
    if len(starts) < 3:
        starts = [split.n_tokens * k // 3 for k in range(3)]
    chosen = [starts[len(starts) * k // 3] for k in range(3)]
    pieces = [split.read(s, min(s + length, split.n_tokens)).tolist() for s in chosen]
    pieces = [ids[: ids.index(tokenizer.eos_id)] if tokenizer.eos_id in ids else ids for ids in pieces]
    # A token may end inside a character; what is left of it is no prompt. One line is easier to show and to type.
    texts = [tokenizer.decode(ids).strip("�").strip() for ids in pieces]
    return [text.splitlines()[0].rstrip() for text in texts if text]


def _complete(progress: Progress, start: Path | None, last_step: int | None, max_time: float | None) -> bool:
    if start is None or not progress.finished:
        return False
    return (last_step is not None and progress.step >= last_step) or (
        max_time is not None and progress.seconds >= max_time
    )


def choose_eval_windows(recipe: Recipe, start: Path | None) -> int:
    """Windows of each evaluation: max_iters batches, of the size that the micro-batch had when the run began."""
    if start is not None:
        settings = read_manifest(start, "checkpoint").settings
        if settings["recipe"]["eval.max_iters"] == recipe.eval.max_iters:
            return settings["eval_windows"]
    return recipe.eval.max_iters * recipe.train.micro_batch_size


def _announce(
    console: Console, config: Any, compute: Compute, train: TokenSplit, val: TokenSplit, batches: Batches,
    last_step: int | None, progress: Progress, start: Path | None,
) -> None:  # fmt: skip
    threads = f", {compute.num_threads} threads" if compute.device.type == "cpu" else ""
    console.say(
        f"pretrain   {config.family}, {count_parameters(config):,} parameters ({config.n_layer} layers, {config.n_embd} "
        f"wide, vocabulary {config.padded_vocab_size:,}); {train.n_tokens:,} training and {val.n_tokens:,} validation "
        f"tokens; {last_step or 'timed'} steps; {compute.device}{threads}, {compute.precision}, "
        f"{'compiled' if compute.compile else 'not compiled'}"
    )
    if start is not None:
        console.say(f"           going on from {start} (step {progress.step})")
