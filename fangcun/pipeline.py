"""`fangcun run`: corpus, tokenizer, tokens, pretraining, one after the other, each skipped when its result stands.

Started by torchrun, the first process makes what is missing, and all of them train.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Literal

from fangcun.artifacts import (
    MANIFEST,
    TIMINGS,
    RunLock,
    check_replaceable,
    find_weights,
    keep_replaced,
    list_checkpoints,
    previous_of,
    remove_stale,
    write_text_atomic,
)
from fangcun.config import LoadedRecipe, Recipe, check_inputs, dump_recipe
from fangcun.config.inputs import Verb
from fangcun.console import Console
from fangcun.errors import FangcunError
from fangcun.launch import looks_like_job
from fangcun.rebuild import DeclinedError, describe_kept
from fangcun.stages import STAGES, Stages
from fangcun.urls import is_url

if TYPE_CHECKING:
    from fangcun.training.distributed import Ranks

_HEADER = "Fangcun run"
"""First words of the recipe.yaml that a run folder holds."""
_LAST_STAGE = {"corpus": "corpus", "tokenizer": "tokenizer", "pack": "tokens"}


class Terminated(BaseException):
    """SIGTERM arrived in a stage: unwind, leave nothing half written, exit 143."""


def run(loaded: LoadedRecipe, *, verb: Verb = "run", yes: bool = False, console: Console | None = None) -> int:
    """Walk the recipe's stages up to and including the verb's; return the exit code. Raises FangcunError.

    yes: stages that changed are made anew without a question, however long it takes (see rebuild.py).
    """
    console = console or Console()
    folder = Path(loaded.recipe.out_dir or Path("runs") / loaded.name)
    if loaded.import_report is not None:
        console.say(str(loaded.import_report))
    check_surroundings(loaded, folder, verb)
    if verb not in _LAST_STAGE and loaded.recipe.device == "auto":
        from fangcun.model.device import unseen_gpu

        if advice := unseen_gpu():
            console.warn(f"{advice} Going on with the CPU, which is much slower.")
    alone = threading.current_thread() is threading.main_thread() and os.name != "nt"
    before = signal.signal(signal.SIGTERM, _terminate) if alone else None
    try:
        if several_processes():
            return _run_ranks(loaded, folder, verb, console, yes=yes)
        with RunLock(folder):
            remove_stale(folder)
            return _run_locked(loaded, folder, verb, console, yes=yes)
    except DeclinedError as no:
        console.say(str(no))
        return no.exit_code
    except Terminated:
        console.say("Terminated. Finished stages are kept; run the same command again to go on.")
        return 143
    except KeyboardInterrupt:
        console.say("Interrupted. Finished stages are kept; run the same command again to go on.")
        return 130
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def several_processes() -> bool:
    """Whether torchrun started more than this process."""
    return os.environ.get("WORLD_SIZE", "1") not in ("", "1")


def _run_ranks(loaded: LoadedRecipe, folder: Path, verb: Verb, console: Console, *, yes: bool) -> int:
    """The first rank makes what is missing before the training, as a single process would; then all train together."""
    from fangcun.training.distributed import joined, ranks_from_environment
    from fangcun.training.precision import choose_compute

    if verb in _LAST_STAGE:
        if not ranks_from_environment().is_first:
            return 0
        with RunLock(folder):
            remove_stale(folder)
            return _run_locked(loaded, folder, verb, console, yes=yes)
    with joined(choose_compute(loaded.recipe).device.type) as ranks:
        if not ranks.is_first:
            return _run_locked(loaded, folder, verb, Console(quiet=True), ranks, yes=yes)
        with RunLock(folder):
            remove_stale(folder)
            return _run_locked(loaded, folder, verb, console, ranks, yes=yes)


def agree_before_job(loaded: LoadedRecipe, *, yes: bool, console: Console | None = None) -> bool:
    """Ask now what a job could ask nobody; whether it has to be told --yes. Raises FangcunError and DeclinedError, see rebuild.py."""
    folder = Path(loaded.recipe.out_dir or Path("runs") / loaded.name)
    if yes or list_checkpoints(folder) or not (folder / TIMINGS).is_file():
        return yes
    recipe = borrow_tokenizer(with_absolute_paths(loaded.recipe))
    return Stages(recipe, folder, console or Console(), begun=False).plan(until="tokens")


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun sends it again: once is enough to unwind
    raise Terminated


def resume_command(folder: Path) -> str:
    """What to type to go on with the run in `folder`."""
    return shlex.join(["fangcun", "run", str(folder / "recipe.yaml"), "--out", str(folder)])


def check_surroundings(loaded: LoadedRecipe, folder: Path, verb: Verb) -> None:
    """What can be known wrong before any stage begins: inputs, a folder that is no run, a device or optimizer not here."""
    check_folder(folder)
    begun = bool(list_checkpoints(folder))
    if not begun:
        check_inputs(loaded, verb)
    if verb not in _LAST_STAGE:
        from fangcun.training.distributed import ranks_from_environment
        from fangcun.training.optimizers import check_optimizer
        from fangcun.training.precision import choose_compute
        from fangcun.training.pretrain import share_micro_batch
        from fangcun.training.resume import flatten
        from fangcun.training.trackers import check_trackers

        choose_compute(loaded.recipe)
        share_micro_batch(loaded.recipe, ranks_from_environment())
        check_trackers(loaded.recipe.trackers, flatten(loaded.recipe))
        check_optimizer(loaded.recipe.optimizer)
        if loaded.recipe.init_from is not None and not begun:
            from fangcun.model import read_config

            read_config(find_weights(loaded.recipe.init_from))
            if loaded.recipe.tokenizer.path is not None:  # before a corpus is made that is of no use
                from fangcun.tokenizer import import_tokenizer
                from fangcun.training.initial import check_own_tokenizer

                check_own_tokenizer(loaded.recipe.init_from, import_tokenizer(loaded.recipe.tokenizer.path).tokenizer)


def check_folder(folder: Path) -> None:
    """Raise FangcunError for a run folder that is something else."""
    if folder.exists() and not folder.is_dir():
        raise FangcunError(f"out_dir: {folder} is a file, expected a folder. Choose another with --out.")
    if folder.is_dir() and any(folder.iterdir()) and not _looks_like_run(folder):
        raise FangcunError(f"out_dir: {folder} is not empty and no run folder. Choose another with --out.")
    for stage in STAGES:
        check_replaceable(folder / stage, stage)
        check_replaceable(previous_of(folder / stage), stage)


def _looks_like_run(folder: Path) -> bool:
    """A folder that this program made: it has a recipe, a lock, or an artefact of ours (whole or half written)."""
    stages = [folder / stage for stage in STAGES]
    if list_checkpoints(folder) or any((s / MANIFEST).is_file() for s in (*stages, *map(previous_of, stages))):
        return True
    recipe = folder / "recipe.yaml"
    if recipe.is_file():  # somebody's own recipe.yaml is not to be written over
        return recipe.read_bytes().startswith(f"# {_HEADER}".encode())
    if (folder / "writer.lock").is_file() or any(any(folder.glob(f"{stage}.tmp-*")) for stage in STAGES):
        return True
    return looks_like_job(folder)


def _run_locked(
    loaded: LoadedRecipe, folder: Path, verb: Verb, console: Console, ranks: Ranks | None = None, *, yes: bool
) -> int:
    recipe = borrow_tokenizer(with_absolute_paths(loaded.recipe))
    first = ranks is None or ranks.is_first
    if verb not in _LAST_STAGE:
        from fangcun.training.resume import choose_checkpoint, continue_with

        if ranks is not None:
            ranks.wait()  # the first has the lock and has cleared up: what all read from here on is the same
        start = choose_checkpoint(folder, recipe.resume)
        if start is not None:
            recipe, warnings = continue_with(start, recipe, loaded.origins)
            recipe = borrow_tokenizer(recipe)
            for text in warnings:
                console.warn(text)
    stages = Stages(recipe, folder, console, begun=bool(list_checkpoints(folder)))
    until = _LAST_STAGE.get(verb, "tokens")
    if ranks is None:
        stages.plan(until=until, yes=yes)
    else:
        _plan_for_all(ranks, stages, until, yes)
    if not first:
        assert ranks is not None
        ranks.wait()
        stages.find()
    elif not stages.begun:
        # A foreign checkpoint is remembered until the run has one of its own.
        recorded = recipe.resume if isinstance(recipe.resume, str) else "auto"
        text = dump_recipe(dataclasses.replace(recipe, resume=recorded), f"{_HEADER}, from recipe {loaded.name}")
        write_text_atomic(folder / "recipe.yaml", text)
    if first:
        stages.walk()
    if verb in _LAST_STAGE:
        console.say(f"done       {folder}")
        return 0
    if ranks is not None and first:
        ranks.wait()
    from fangcun.summary import print_summary
    from fangcun.training import pretrain

    outcome = pretrain(
        recipe, folder, tokens=stages.tokens, tokenizer_folder=stages.tokenizer, name=loaded.name, console=console,
        ranks=ranks,
    )  # fmt: skip
    if not outcome.finished:
        console.say(f"Stopped by {outcome.stopped_by}; saved. To go on: {resume_command(folder)}")
        return outcome.exit_code
    if not outcome.trained_steps:
        console.say("pretrain   done before, skipped")
    if first:
        print_summary(folder, console)
    return 0


def _plan_for_all(ranks: Ranks, stages: Stages, until: str, yes: bool) -> None:
    """The first rank plans; what it refuses all refuse, for the others would wait for it in vain. Raises FangcunError."""
    refusal: FangcunError | None = None
    if ranks.is_first:
        try:
            stages.plan(until=until, yes=yes)
        except FangcunError as error:
            refusal = error
    sentence = ranks.from_first(str(refusal) if refusal else "", patient=True)
    ranks.wait()  # until all have heard it: the first one's end would cut off the others
    if refusal or sentence:
        raise refusal or FangcunError(sentence)


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """Inputs by absolute path: the run's recipe.yaml then works from every folder."""

    def absolute(path: bool | str | None) -> str | None:
        return os.path.abspath(path) if isinstance(path, str) else None  # noqa: PTH100  (keeps links and globs as they are)

    def all_absolute(paths: list[str] | None) -> list[str] | None:
        return paths and [os.path.abspath(os.path.expanduser(path)) for path in paths]  # noqa: PTH100, PTH111

    corpus, sources = recipe.corpus, recipe.corpus.sources
    if sources is not None:
        sources = {n: dataclasses.replace(source, paths=all_absolute(source.paths)) for n, source in sources.items()}
    tokens = recipe.tokens
    cache_folder = tokens.cache_folder and str(Path(tokens.cache_folder).expanduser())
    return dataclasses.replace(
        recipe,
        corpus=dataclasses.replace(corpus, paths=all_absolute(corpus.paths), sources=sources),
        dedup=dataclasses.replace(recipe.dedup, references=all_absolute(recipe.dedup.references)),
        tokenizer=dataclasses.replace(recipe.tokenizer, path=absolute(recipe.tokenizer.path)),
        tokens=dataclasses.replace(
            tokens,
            path=tokens.path if is_url(tokens.path) else absolute(tokens.path),
            cache_folder=absolute(cache_folder),
        ),
        tracking=dataclasses.replace(recipe.tracking, folder=absolute(recipe.tracking.folder)),
        init_from=absolute(recipe.init_from),
        resume=absolute(recipe.resume) or "auto" if _is_path(recipe.resume) else recipe.resume,
    )


def _is_path(resume: bool | str) -> bool:
    return isinstance(resume, str) and resume != "auto"


def borrow_tokenizer(recipe: Recipe) -> Recipe:
    """With `init_from` and no tokenizer named, the model's own tokenizer is the one."""
    if recipe.init_from is None or recipe.tokenizer.path is not None:
        return recipe
    path = recipe.init_from
    if (
        Path(path) / "tokenizer" / "tokenizer.json"
    ).is_file():  # a run's, which stays where its checkpoints come and go
        path = str(Path(path) / "tokenizer")
    else:
        with contextlib.suppress(FangcunError):  # gone since a run began with it, which then needs it no more
            path = str(find_weights(path))
    return dataclasses.replace(recipe, tokenizer=dataclasses.replace(recipe.tokenizer, path=path))


def adopt_tokens(
    train: Path,
    val: Path | None,
    tokenizer_path: str,
    out: Path,
    dtype: Literal["auto", "uint16", "uint32"] = "auto",
    console: Console | None = None,
) -> None:
    """Flat token files of another program become `out/tokens`, their tokenizer `out/tokenizer`. Raises FangcunError."""
    from fangcun.config import TokenizerConfig
    from fangcun.tokenizer import build_tokenizer
    from fangcun.tokens import adopt

    console = console or Console()
    out = Path(out).resolve()
    check_folder(out)
    if list_checkpoints(out):
        raise FangcunError(f"{out} holds a trained run, which is never rebuilt. Choose another folder with --out.")
    if not Path(tokenizer_path).exists():
        raise FangcunError(f"--tokenizer.path: there is no '{tokenizer_path}'.")
    with RunLock(out):
        remove_stale(out)
        with keep_replaced():
            build_tokenizer(TokenizerConfig(path=tokenizer_path), None, out / "tokenizer")
            manifest = adopt(train, val, out / "tokenizer", out / "tokens", dtype, progress=console.progress("adopt"))
    for split, counts in manifest.counts.items():
        console.say(
            f"{split:<10} {counts['tokens']:,} tokens in {counts['documents']:,} documents, {manifest.settings['dtype']}"
        )
    for stage in ("tokenizer", "tokens"):
        if kept := describe_kept(out / stage, stage):
            console.say(f"{stage:<10} {kept}")
    console.say(f"Train on them: fangcun run RECIPE --tokens.path {shlex.quote(str(out))}")
