"""Contradictions between settings: what no single field's type can see. A setting that nothing reads is one of them.

A setting of the file that a *flag* makes idle (`--tokenizer.path` beside the file's `tokenizer.vocab_size`) is dropped;
two settings of the same origin that exclude each other are an error that names both places.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from fangcun.config.check_sources import find_source_mistakes
from fangcun.config.findings import Findings, Given
from fangcun.config.keys import recipe_keys
from fangcun.config.resolve import resolve_model
from fangcun.config.schema import Recipe
from fangcun.errors import ConfigError
from fangcun.urls import is_url

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
_SLURM_TIME = re.compile(r"\d+-\d+(:\d+){0,2}|\d+(:\d+){0,2}")
_STOPS = ("train.max_steps", "train.max_tokens", "train.epochs", "train.max_time")


def find_contradictions(recipe: Recipe, origins: Mapping[str, Given]) -> tuple[list[str], list[str]]:
    """(a sentence for each contradiction, keys from the file that a flag made idle and that are to be dropped)."""
    found = Findings(recipe, origins)
    for check in (
        _corpus,
        find_source_mistakes,
        _dedup,
        _tokenizer_and_tokens,
        _cluster,
        _batches,
        _length,
        _schedule,
        _model,
        _init,
        _optimizer,
        _trackers,
        _machine,
    ):
        check(found, recipe)
    return found.problems, found.unused


def idle_settings(recipe: Recipe) -> list[str]:
    """Settings that differ from their default and that nothing in this recipe reads."""
    found = Findings(recipe, dict.fromkeys(recipe_keys(), Given("", False)), forgive=True)
    for check in (_corpus, _dedup, _tokenizer_and_tokens, _cluster, _schedule, _model, _init, _optimizer, _trackers):
        check(found, recipe)
    return found.unused


def _corpus(found: Findings, recipe: Recipe) -> None:
    corpus = recipe.corpus
    given = [key for key in ("corpus.paths", "corpus.sources", "corpus.builtin") if found.value(key) is not None]
    if len(given) > 1:
        found.error(given[:0:-1], f"{given[0]} ({found.place(given[0])}) is given too; a run reads one or the other.")
    if corpus.paths == []:
        found.error(["corpus.paths"], "the list is empty; name at least one file, folder or glob.")
    if corpus.txt_split == "separator" and not corpus.separator:
        found.error(
            ["corpus.txt_split"], "txt_split 'separator' needs corpus.separator, the string between two documents."
        )
    if corpus.txt_split != "separator":
        found.idle(
            ["corpus.separator"], "corpus.txt_split", f"it has no effect with corpus.txt_split '{corpus.txt_split}'."
        )
    if corpus.txt_split != "chapter":
        found.idle(
            ["corpus.chapter_pattern"],
            "corpus.txt_split",
            f"it has no effect with corpus.txt_split '{corpus.txt_split}'.",
        )
    if corpus.chapter_pattern is not None:
        try:
            re.compile(corpus.chapter_pattern)
        except re.error as error:
            found.error(["corpus.chapter_pattern"], f"not a regular expression: {error}.")
    if corpus.builtin is not None:
        keys = ["corpus.text_key", "corpus.txt_split", "corpus.separator", "corpus.chapter_pattern", "corpus.encoding"]
        found.idle(keys, "corpus.builtin", "it has no effect on the built-in text.")


def _dedup(found: Findings, recipe: Recipe) -> None:
    if not recipe.dedup.near:
        found.idle(["dedup.similarity"], "dedup.near", "it has no effect without dedup.near.")
    if recipe.dedup.paragraph_documents is None:
        keys = ["dedup.paragraph_characters"]
        found.idle(keys, "dedup.paragraph_documents", "it has no effect without dedup.paragraph_documents.")
    if recipe.dedup.references == []:
        found.error(["dedup.references"], "the list is empty; name at least one file or folder, or leave it out.")
    if not recipe.dedup.references and not recipe.dedup.held_out:
        keys = ["dedup.overlap_characters"]
        found.idle(keys, "dedup.references", "it has no effect without dedup.references or dedup.held_out.")


def _tokenizer_and_tokens(found: Findings, recipe: Recipe) -> None:
    if recipe.tokenizer.path is not None:
        keys = [
            f"tokenizer.{leaf}" for leaf in ("kind", "vocab_size", "trainer", "gb2312", "max_han_run", "sample_bytes")
        ]
        found.idle(keys, "tokenizer.path", "it has no effect where tokenizer.path names a finished tokenizer.")
    elif recipe.tokenizer.kind == "char":
        keys = [f"tokenizer.{leaf}" for leaf in ("vocab_size", "trainer", "gb2312", "max_han_run", "sample_bytes")]
        found.idle(keys, "tokenizer.kind", "it has no effect with tokenizer.kind 'char'.")
    elif recipe.tokenizer.trainer != "fangcun":
        found.idle(["tokenizer.gb2312"], "tokenizer.trainer", "only the trainer fangcun has it.")
    elif recipe.tokenizer.gb2312 is True and recipe.tokenizer.vocab_size < 8000:
        found.error(
            ["tokenizer.gb2312", "tokenizer.vocab_size"],
            "the hanzi of GB2312 level 1 need tokenizer.vocab_size of 8000 or more. Raise it or leave tokenizer.gb2312 at auto.",
        )
    if recipe.tokens.path is not None:
        keys = [f"tokens.{leaf}" for leaf in ("dtype", "workers", "encoder", "shard_tokens", "upload")]
        found.idle(keys, "tokens.path", "it has no effect where tokens.path names finished token shards.")
    if not is_url(recipe.tokens.path):
        keys = ["tokens.cache_bytes", "tokens.cache_folder"]
        found.idle(keys, "tokens.path", "it has an effect only where tokens.path is a URL.")
    if recipe.tokens.upload is not None and not is_url(recipe.tokens.upload):
        found.error(["tokens.upload"], f"expected a URL such as s3://bucket/run, got '{recipe.tokens.upload}'.")


def _cluster(found: Findings, recipe: Recipe) -> None:
    executor = recipe.cluster.executor
    of_slurm = ["time", "partition", "account", "qos", "setup", "sbatch"]
    idle = {
        None: ["tasks", "workers", "memory_gb", *of_slurm, "ray_address"],
        "local": ["memory_gb", *of_slurm, "ray_address"],
        "ray": of_slurm,
        "slurm": ["ray_address"],
    }[executor]
    with_it = f"with cluster.executor '{executor}'" if executor else "without cluster.executor"
    found.idle([f"cluster.{leaf}" for leaf in idle], "cluster.executor", f"it has no effect {with_it}.")
    if executor is None:
        return
    workers = ["corpus.workers", "tokens.workers"]
    found.idle(workers, "cluster.executor", "it has no effect with cluster.executor: cluster.workers counts the tasks.")
    if not _SLURM_TIME.fullmatch(recipe.cluster.time):
        found.error(["cluster.time"], f"expected minutes, HH:MM:SS or D-HH:MM:SS, got '{recipe.cluster.time}'.")
    for word in recipe.cluster.sbatch:
        if not re.fullmatch(r"--[a-z][a-z-]*(=.+)?", word):
            found.error(
                ["cluster.sbatch"], f"expected an option such as --exclusive or --constraint=rome, got '{word}'."
            )


def _batches(found: Findings, recipe: Recipe) -> None:
    train = recipe.train
    if train.global_batch_size % train.micro_batch_size:
        fits = max(n for n in range(1, train.micro_batch_size + 1) if train.global_batch_size % n == 0)
        found.error(
            ["train.micro_batch_size", "train.global_batch_size"],
            f"global_batch_size {train.global_batch_size} is not a multiple of micro_batch_size {train.micro_batch_size}. "
            f"A micro_batch_size of {fits} fits.",
        )
    if train.max_seq_length is not None and recipe.init_from is None and train.max_seq_length > recipe.model.block_size:
        found.error(
            ["train.max_seq_length", "model.block_size"],
            f"train.max_seq_length {train.max_seq_length} is longer than model.block_size {recipe.model.block_size}, "
            f"the longest context of the model ({found.place('model.block_size')}).",
        )


def _length(found: Findings, recipe: Recipe) -> None:
    if all(found.value(key) is None for key in _STOPS):
        found.error(_STOPS, "the run would never end. Give one of train.max_steps, max_tokens, epochs, max_time.")


def _schedule(found: Findings, recipe: Recipe) -> None:
    train = recipe.train
    if train.lr_schedule != "wsd":
        found.idle(
            ["train.lr_decay_share", "train.lr_decay_shape"],
            "train.lr_schedule",
            f"it has no effect with train.lr_schedule '{train.lr_schedule}'.",
        )
    if train.lr_schedule == "constant":
        found.idle(
            ["train.lr_decay_steps", "train.min_lr"],
            "train.lr_schedule",
            "it has no effect with train.lr_schedule 'constant'.",
        )
        return
    if (
        train.lr_decay_steps is None
        and train.max_time is not None
        and all(found.value(key) is None for key in _STOPS[:3])
    ):
        found.error(
            ["train.lr_schedule", "train.max_time"],
            f"{train.lr_schedule} has to know its last step, and max_time alone does not give one. "
            "Add train.lr_decay_steps (or max_steps), or set train.lr_schedule: constant.",
        )
    if train.min_lr > recipe.optimizer.lr:
        found.error(
            ["train.min_lr", "optimizer.lr"], f"min_lr {train.min_lr:g} is above optimizer.lr {recipe.optimizer.lr:g}."
        )
    if train.lr_decay_steps is not None and train.lr_decay_steps <= train.lr_warmup_steps:
        found.error(
            ["train.lr_decay_steps"],
            f"{train.lr_schedule} would end at step {train.lr_decay_steps}, before the warm-up of train.lr_warmup_steps {train.lr_warmup_steps} does.",
        )


def _model(found: Findings, recipe: Recipe) -> None:
    if recipe.init_from is None:
        try:  # any vocabulary will do here: the real one is known when the tokenizer is
            resolve_model(recipe.model, recipe.model.vocab_size or recipe.model.padded_vocab_size or 512)
        except ConfigError as error:
            named = [key for key in recipe_keys() if key.startswith("model.") and _names(str(error), key)]
            place = next((found.origins[key].place for key in named if key in found.origins), None)
            found.problems.append(f"{place}: {error}" if place else str(error))
        if recipe.model.ngram_rows is None:
            found.idle(["model.ngram_length"], "model.ngram_rows", "it has no effect without model.ngram_rows.")
        return
    keys = [key for key in recipe_keys() if key.startswith("model.")]
    found.idle(keys, "init_from", "the model's shape comes from the folder of init_from.")


def _init(found: Findings, recipe: Recipe) -> None:
    if recipe.init_from is not None:
        keys = [key for key in recipe_keys() if key.startswith("init.")]
        found.idle(keys, "init_from", "the first weights come from the folder of init_from.")
    elif recipe.init.zero_head and recipe.model.tie_embeddings:
        found.error(
            ["init.zero_head", "model.tie_embeddings"],
            "the head is the embedding's matrix, and an embedding of zeros would learn nothing. Set model.tie_embeddings: false, or remove it.",
        )


def _optimizer(found: Findings, recipe: Recipe) -> None:
    name = recipe.optimizer.name
    if name != "muon":
        keys = [key for key in recipe_keys() if key.startswith("optimizer.muon_")]
        found.idle(keys, "optimizer.name", f"it has no effect with optimizer.name '{name}'.")
    if recipe.init_from is None and recipe.model.tie_embeddings:
        found.idle(
            ["optimizer.head_lr"],
            "model.tie_embeddings",
            "the head is the embedding's matrix: use optimizer.embedding_lr.",
        )


def _names(message: str, key: str) -> bool:
    return re.search(rf"\b{key.partition('.')[2]}\b", message) is not None


def _trackers(found: Findings, recipe: Recipe) -> None:
    readers = {
        "tracking.project": ("swanlab", "wandb", "trackio"),
        "tracking.folder": ("swanlab", "wandb", "trackio"),
        "tracking.swanlab_mode": ("swanlab",),
        "tracking.wandb_mode": ("wandb",),
    }
    for key, names in readers.items():
        if not set(names) & set(recipe.trackers):
            found.idle([key], "trackers", f"it has no effect where trackers names no {' or '.join(names)}.")
    read = set(readers["tracking.project"]) & set(recipe.trackers)
    if read and not re.fullmatch(r"[\w.+-]{1,100}", recipe.tracking.project, re.ASCII):
        found.error(
            ["tracking.project"],
            f"expected up to 100 letters of a-z, A-Z, 0-9, '_', '-', '+' and '.', got '{recipe.tracking.project}'.",
        )


def _machine(found: Findings, recipe: Recipe) -> None:
    if not _DEVICE.fullmatch(recipe.device):
        found.error(["device"], f"expected auto, cpu, cuda, cuda:N or mps, got '{recipe.device}'.")
    if recipe.device == "cpu" and recipe.precision == "16-mixed":
        found.error(["precision", "device"], "16-mixed needs a CUDA device; on cpu use bf16-mixed (or 32-true).")
    if recipe.precision == "bf16-true" and recipe.train.strategy == "fsdp":
        found.error(
            ["precision", "train.strategy"],
            "fsdp computes with bf16 weights and keeps float32 ones under bf16-mixed; use that.",
        )
    if recipe.precision == "16-mixed" and recipe.train.strategy == "fsdp":
        found.error(
            ["precision", "train.strategy"], "16-mixed does not work with fsdp; use bf16-mixed, or strategy ddp."
        )
    if recipe.device == "cpu" and recipe.precision == "fp8-mixed":
        found.error(
            ["precision", "device"], "fp8-mixed needs an NVIDIA GPU with float8 products; on cpu use bf16-mixed."
        )
    if recipe.device == "mps" and recipe.precision not in ("auto", "32-true"):
        found.error(["precision", "device"], f"{recipe.precision} is not supported on mps; use 32-true.")
    if recipe.resume == "":
        found.error(["resume"], "expected auto, true, false or a checkpoint folder, got an empty text.")
