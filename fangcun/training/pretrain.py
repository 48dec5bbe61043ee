"""From tokens to a trained model: sets the run up, restores it where it stood, and lets the trainer finish it."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fangcun.artifacts import find_weights, list_checkpoints, read_manifest, write_text_atomic
from fangcun.config import Recipe, count_parameters, dump_recipe, resolve_model
from fangcun.console import Console
from fangcun.errors import FangcunError, LostRankError
from fangcun.model import Transformer, check_exportable, initialize, load_model, read_config, recompute_blocks
from fangcun.tokenizer import Tokenizer
from fangcun.tokens import (
    Batches,
    MixedOrder,
    RemoteTokens,
    TokenSplit,
    WindowOrder,
    check_tokenizer,
    open_split,
    tokens_manifest,
)
from fangcun.training.checkpoint import Progress, read_progress, restore_checkpoint
from fangcun.training.cpu import samples_at_once, tune_allocator
from fangcun.training.distributed import Ranks, lost_rank
from fangcun.training.float8 import use_float8
from fangcun.training.initial import check_own_tokenizer, weights_fingerprint
from fangcun.training.interrupt import stop_on_signals
from fangcun.training.limits import plan_horizon, samples_of_stream
from fangcun.training.mixing import describe_phases, phases_as_json, plan_run, read_mixture
from fangcun.training.optimizers import build_optimizers
from fangcun.training.parallel import Parallel, spread
from fangcun.training.precision import Compute, choose_compute
from fangcun.training.reporter import Reporter
from fangcun.training.resume import check_tokens, choose_checkpoint, flatten, resume_to_record, resumed_from
from fangcun.training.trackers import Tracker, open_trackers
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
    recipe: Recipe,
    run: Path,
    *,
    tokens: Path | RemoteTokens,
    tokenizer_folder: Path,
    name: str,
    console: Console,
    ranks: Ranks | None = None,
) -> Outcome:
    """Train in `run`, going on from its newest checkpoint where there is one.

    `tokens` and `tokenizer_folder` are artefact folders; the tokens may lie at a URL. Writes `recipe.yaml` with every automatic choice made, then
    metrics, samples and checkpoints. `ranks`: this process among those of the run (see `distributed.joined`); all of them
    call this together, and the first one writes. Raises FangcunError.
    """
    ranks = ranks or Ranks()
    tokenizer = Tokenizer.load(tokenizer_folder)
    check_tokenizer(tokens, tokenizer)
    start = choose_checkpoint(run, recipe.resume)
    train, val = open_split(tokens, "train"), open_split(tokens, "val")
    compute = place(choose_compute(recipe), ranks)
    if recipe.deterministic:
        make_deterministic()
    progress = read_progress(start) if start else Progress()
    tokens_fingerprint = tokens_manifest(tokens).fingerprint
    if start is not None:
        check_tokens(start, tokens_fingerprint)
    parents, fresh_model = {"tokens": tokens_fingerprint}, None
    if recipe.init_from and start is None:
        check_own_tokenizer(recipe.init_from, tokenizer)
        fresh_model = load_model(find_weights(recipe.init_from))
        parents["init_from"] = weights_fingerprint(recipe.init_from)
    elif start is not None:
        known = read_manifest(start, "checkpoint").parents
        parents |= {name: known[name] for name in ("init_from",) if name in known}
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
    mixture = read_mixture(recipe.mix, train)
    samples_in = (
        mixture.samples_in(block_size)
        if mixture
        else samples_of_stream(WindowOrder(train.n_tokens, block_size, recipe.seed))
    )
    horizon = plan_horizon(recipe.train, samples_in, tokens_per_step=recipe.train.global_batch_size * block_size)
    phases, remixed = plan_run(
        mixture, recipe, block_size=block_size, last_step=horizon.last_step, samples=progress.samples,
        stored=read_manifest(start, "checkpoint").settings if start is not None else None,
    )  # fmt: skip
    batches = Batches(train, block_size, recipe.seed, phases)
    for text in (*horizon.warnings, *([remixed] if remixed else [])):
        console.warn(text)
    micro_batch_size = share_micro_batch(recipe, ranks)
    if micro_batch_size != recipe.train.micro_batch_size:
        console.say(
            f"           micro-batches of {micro_batch_size}, to share {recipe.train.global_batch_size} samples a step"
        )
    resolved = dataclasses.replace(record_choices(recipe, compute, ranks), resume=resume_to_record(run, recipe.resume))
    if not recipe.init_from:
        resolved = dataclasses.replace(resolved, model=config)
    if ranks.is_first:
        write_text_atomic(run / "recipe.yaml", dump_recipe(resolved, header=f"Fangcun run, from recipe {name}"))
    settings = {
        "recipe": flatten(resolved),
        "world_size": ranks.world_size,
        "eval_windows": choose_eval_windows(recipe, start),
        "resumed_from": resumed_from(run, start),
    }
    if phases is not None and mixture is not None:
        settings["mixture"] = phases_as_json(phases, mixture.names, horizon.last_step)
    if start is not None and read_manifest(start, "checkpoint").settings["eval_windows"] != settings["eval_windows"]:
        progress.best_val_loss = None  # losses on other windows are no measure
    if _complete(progress, start, horizon.last_step, recipe.train.max_time):
        if start is not None and start.resolve().parent.parent != run.resolve():
            raise FangcunError(
                f"resume: {start} has reached the end (step {progress.step}). Raise --train.max_steps to go on from it in {run}."
            )
        return Outcome(True, 0)
    torch.set_num_threads(compute.num_threads)
    if compute.device.type == "cpu":
        tune_allocator(keep=not recipe.train.activation_checkpointing)
    model = fresh_model or Transformer(config)
    if fresh_model is None and start is None:
        initialize(model, recipe.seed, recipe.init)
    model.to(compute.device)
    if compute.precision == "fp8-mixed":
        use_float8(model)
    if recipe.train.activation_checkpointing:
        recompute_blocks(model)
    document_end = train.eos_id if recipe.train.document_mask else None
    parallel = spread(model, compute, ranks, recipe.train.strategy, document_end=document_end)
    optimizers = build_optimizers(model, recipe.optimizer)
    if start is not None:
        restore_checkpoint(start, model, optimizers)
        parallel.refresh()
    scaler = None
    if compute.precision == "16-mixed":
        scaler = torch.amp.GradScaler(compute.device.type)
        if progress.scaler:
            scaler.load_state_dict(progress.scaler)
    _announce(console, config, compute, parallel, train, val, horizon.last_step, progress, start)
    if isinstance(batches.order, MixedOrder):
        last_sample = horizon.last_step and horizon.last_step * recipe.train.global_batch_size
        for text in describe_phases(batches.order, progress.samples, last_sample):
            console.say(f"mixture    {text}")
    if not val.n_tokens:
        console.warn("the validation split is empty: no validation loss, no best checkpoint.")
    resumed = progress.step if progress.step or list_checkpoints(run) else -1

    def trackers_from(step: int) -> list[Tracker]:
        opened = open_trackers(
            recipe.trackers,
            run,
            title=run.resolve().name,
            settings=settings["recipe"],
            resume_step=step,
            warn=console.warn,
        )
        for tracker in opened:
            console.say(f"tracker    {tracker.hint}")
        return opened

    reporter = Reporter(
        run, console, resume_step=resumed, drop_evaluations=not progress.settled, speaks=ranks.is_first,
        open_trackers=trackers_from,
    )  # fmt: skip
    with stop_on_signals() as stop:
        first = progress.step
        trainer = Trainer(
            recipe, run, model=model, parallel=parallel, optimizers=optimizers, tokenizer=tokenizer, batches=batches, val=val,
            compute=compute, horizon=horizon, progress=progress, parents=parents,
            settings=settings, prompts=choose_prompts(recipe, val if val.n_tokens else train, tokenizer),
            reporter=reporter, stop=stop, scaler=scaler,
            micro_batch_size=samples_at_once(config, micro_batch_size, block_size, compute.device),
        )  # fmt: skip
        try:
            finished = trainer.fit()
        except Exception as error:
            if ranks.world_size > 1 and lost_rank(error):
                raise LostRankError(_tell_loss(run)) from error
            raise
        if not finished:
            return Outcome(False, trainer.progress.step - first, stop.exit_code, stop.name)
    return Outcome(True, trainer.progress.step - first)


def _tell_loss(run: Path) -> str:
    kept = list_checkpoints(run)
    newest = f"The newest checkpoint is {kept[-1]}." if kept else "No checkpoint was written yet."
    return (
        f"another rank of this run is gone. {newest} Run the same command again to go on "
        "(torchrun --max-restarts N does so by itself)."
    )


def place(compute: Compute, ranks: Ranks) -> Compute:
    """With several ranks on GPUs each takes the one of its number."""
    if ranks.world_size > 1 and compute.device.type == "cuda":
        return dataclasses.replace(compute, device=torch.device("cuda", ranks.local_rank))
    return compute


def make_deterministic() -> None:
    """Only algorithms with the same bits every time; an operation that has none raises torch's error, which names it."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)


def share_micro_batch(recipe: Recipe, ranks: Ranks) -> int:
    """The micro-batch of each rank: the recipe's, or the largest below it that a rank's share is a multiple of.

    Raises FangcunError when the ranks cannot share a global batch evenly.
    """
    samples, world_size = recipe.train.global_batch_size, ranks.world_size
    if samples % world_size:
        fits = next(n for n in range(world_size, 0, -1) if samples % n == 0)
        raise FangcunError(
            f"train.global_batch_size: {samples} samples cannot be shared by {world_size} processes. Start {fits}, or use "
            f"--train.global_batch_size {-(-samples // world_size) * world_size}."
        )
    share = samples // world_size
    return max(n for n in range(1, min(share, recipe.train.micro_batch_size) + 1) if share % n == 0)


def record_choices(recipe: Recipe, compute: Compute, ranks: Ranks) -> Recipe:
    """The recipe with every `auto` of device, precision, compile and threads replaced by what was chosen."""
    train = dataclasses.replace(recipe.train, num_threads=compute.num_threads)
    device = str(compute.device) if ranks.world_size == 1 else compute.device.type
    return dataclasses.replace(recipe, device=device, precision=compute.precision, compile=compute.compile, train=train)


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
    console: Console, config: Any, compute: Compute, parallel: Parallel, train: TokenSplit, val: TokenSplit,
    last_step: int | None, progress: Progress, start: Path | None,
) -> None:  # fmt: skip
    threads = f", {compute.num_threads} threads" if compute.device.type == "cpu" else ""
    world_size = parallel.ranks.world_size
    ranks = f"{world_size} processes ({'sharded' if parallel.sharded else 'replicated'}) on " if world_size > 1 else ""
    console.say(
        f"pretrain   {config.family}, {count_parameters(config):,} parameters ({config.n_layer} layers, {config.n_embd} "
        f"wide, vocabulary {config.padded_vocab_size:,}); {train.n_tokens:,} training and {val.n_tokens:,} validation "
        f"tokens; {last_step or 'timed'} steps; {ranks}{compute.device}{threads}, {compute.precision}, "
        f"{'compiled' if compute.compile else 'not compiled'}"
    )
    if start is not None:
        console.say(f"           going on from {start} (step {progress.step})")
