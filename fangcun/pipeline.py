"""`fangcun run`: corpus, tokenizer, tokens, pretraining, one after the other, each skipped when its result stands.

A stage is done when its folder's fingerprint matches its inputs and settings. While a run has no checkpoint, a stage
whose inputs or settings changed is made anew, and said so; once there is one, the same change is an error, for a
trained model must not lose the text and the tokenizer it was trained with.
"""

from __future__ import annotations

import dataclasses
import glob
import json
import os
import shlex
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from fangcun.artifacts import (
    MANIFEST,
    Manifest,
    RunLock,
    check_replaceable,
    list_checkpoints,
    read_manifest,
    remove_stale,
    write_text_atomic,
)
from fangcun.config import LoadedRecipe, Recipe, check_inputs, dump_recipe
from fangcun.config.inputs import Verb
from fangcun.console import Console, format_seconds
from fangcun.errors import FangcunError
from fangcun.launch import looks_like_job

_HEADER = "Fangcun run"
"""First words of the recipe.yaml that a run folder holds."""
_STAGES = ("corpus", "tokenizer", "tokens")
_LAST_STAGE = {"corpus": "corpus", "tokenizer": "tokenizer", "pack": "tokens"}


class Terminated(BaseException):
    """SIGTERM arrived in a stage: unwind, leave nothing half written, exit 143."""


def run(loaded: LoadedRecipe, *, verb: Verb = "run", console: Console | None = None) -> int:
    """Walk the recipe's stages up to and including the verb's; return the exit code. Raises FangcunError."""
    console = console or Console()
    folder = Path(loaded.recipe.out_dir or Path("runs") / loaded.name)
    if loaded.import_report is not None:
        console.say(str(loaded.import_report))
    check_surroundings(loaded, folder, verb)
    alone = threading.current_thread() is threading.main_thread() and os.name != "nt"
    before = signal.signal(signal.SIGTERM, _terminate) if alone else None
    try:
        with RunLock(folder):
            remove_stale(folder)
            return _run_locked(loaded, folder, verb, console)
    except Terminated:
        console.say("Terminated. Finished stages are kept; run the same command again to go on.")
        return 143
    except KeyboardInterrupt:
        console.say("Interrupted. Finished stages are kept; run the same command again to go on.")
        return 130
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


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
        from fangcun.training.optimizers import check_optimizer
        from fangcun.training.precision import choose_compute
        from fangcun.training.resume import flatten
        from fangcun.training.trackers import check_trackers

        choose_compute(loaded.recipe)
        check_trackers(loaded.recipe.trackers, flatten(loaded.recipe))
        check_optimizer(loaded.recipe.optimizer)
        if loaded.recipe.init_from is not None and not begun:
            from fangcun.model import read_config

            read_config(loaded.recipe.init_from)


def check_folder(folder: Path) -> None:
    """Raise FangcunError for a run folder that is something else."""
    if folder.exists() and not folder.is_dir():
        raise FangcunError(f"out_dir: {folder} is a file, expected a folder. Choose another with --out.")
    if folder.is_dir() and any(folder.iterdir()) and not _looks_like_run(folder):
        raise FangcunError(f"out_dir: {folder} is not empty and no run folder. Choose another with --out.")
    for stage in _STAGES:
        check_replaceable(folder / stage, stage)


def _looks_like_run(folder: Path) -> bool:
    """A folder that this program made: it has a recipe, a lock, or an artefact of ours (whole or half written)."""
    if list_checkpoints(folder) or any((folder / stage / MANIFEST).is_file() for stage in _STAGES):
        return True
    recipe = folder / "recipe.yaml"
    if recipe.is_file():  # somebody's own recipe.yaml is not to be written over
        return recipe.read_bytes().startswith(f"# {_HEADER}".encode())
    if (folder / "writer.lock").is_file() or any(any(folder.glob(f"{stage}.tmp-*")) for stage in _STAGES):
        return True
    return looks_like_job(folder)


def _run_locked(loaded: LoadedRecipe, folder: Path, verb: Verb, console: Console) -> int:
    recipe = borrow_tokenizer(with_absolute_paths(loaded.recipe))
    if verb not in _LAST_STAGE:
        from fangcun.training.resume import choose_checkpoint, continue_with

        start = choose_checkpoint(folder, recipe.resume)
        if start is not None:
            recipe, warnings = continue_with(start, recipe, loaded.origins)
            recipe = borrow_tokenizer(recipe)
            for text in warnings:
                console.warn(text)
    stages = Stages(recipe, folder, console, begun=bool(list_checkpoints(folder)))
    if not stages.begun:
        # A foreign checkpoint is remembered until the run has one of its own.
        recorded = recipe.resume if isinstance(recipe.resume, str) else "auto"
        text = dump_recipe(dataclasses.replace(recipe, resume=recorded), f"{_HEADER}, from recipe {loaded.name}")
        write_text_atomic(folder / "recipe.yaml", text)
    stages.walk(until=_LAST_STAGE.get(verb, "tokens"))
    if verb in _LAST_STAGE:
        console.say(f"done       {folder}")
        return 0
    from fangcun.summary import print_summary
    from fangcun.training import pretrain

    outcome = pretrain(
        recipe, folder, tokens=stages.tokens, tokenizer_folder=stages.tokenizer, name=loaded.name, console=console
    )
    if not outcome.finished:
        console.say(f"Stopped by {outcome.stopped_by}; saved. To go on: {resume_command(folder)}")
        return outcome.exit_code
    if not outcome.trained_steps:
        console.say("pretrain   done before, skipped")
    print_summary(folder, console)
    return 0


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """Inputs by absolute path: the run's recipe.yaml then works from every folder."""

    def absolute(path: bool | str | None) -> str | None:
        return os.path.abspath(path) if isinstance(path, str) else None  # noqa: PTH100  (keeps links and globs as they are)

    paths = recipe.corpus.paths
    return dataclasses.replace(
        recipe,
        corpus=dataclasses.replace(recipe.corpus, paths=paths and [os.path.abspath(p) for p in paths]),  # noqa: PTH100
        tokenizer=dataclasses.replace(recipe.tokenizer, path=absolute(recipe.tokenizer.path)),
        tokens=dataclasses.replace(recipe.tokens, path=absolute(recipe.tokens.path)),
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
    return dataclasses.replace(recipe, tokenizer=dataclasses.replace(recipe.tokenizer, path=recipe.init_from))


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
        build_tokenizer(TokenizerConfig(path=tokenizer_path), None, out / "tokenizer")
        manifest = adopt(train, val, out / "tokenizer", out / "tokens", dtype, progress=console.progress("adopt"))
    for split, counts in manifest.counts.items():
        console.say(
            f"{split:<10} {counts['tokens']:,} tokens in {counts['documents']:,} documents, {manifest.settings['dtype']}"
        )
    console.say(f"Train on them: fangcun run RECIPE --tokens.path {shlex.quote(str(out))}")


def missing_inputs(recipe: Recipe) -> str | None:
    """The first text or tokenizer of the recipe that is not there any more, or None."""
    named = [*(recipe.corpus.paths or []), *([recipe.tokenizer.path] if recipe.tokenizer.path else [])]
    return next((path for path in named if not Path(path).exists() and not glob.has_magic(path)), None)


class Stages:
    """The artefact folders of a run, made or found in turn."""

    def __init__(self, recipe: Recipe, folder: Path, console: Console, *, begun: bool) -> None:
        self.recipe, self.folder, self.console, self.begun = recipe, folder, console, begun
        self.corpus, self.tokenizer, self.tokens = (folder / stage for stage in _STAGES)

    def walk(self, *, until: str) -> None:
        """Make or skip the stages up to `until`."""
        if self.recipe.tokens.path is not None:
            self._use_tokens(Path(self.recipe.tokens.path))
            return
        if self.begun and (gone := missing_inputs(self.recipe)):
            stages = (self.corpus, self.tokenizer, self.tokens)
            if not all((stage / MANIFEST).is_file() for stage in stages):
                raise FangcunError(f"{gone} does not exist, and {self.folder} no longer holds what was made from it.")
            self.console.warn(f"{gone} is gone; going on with what was made from it.")
            return
        corpus_fingerprint = self._corpus()
        if until == "corpus":
            return
        tokenizer_fingerprint = self._tokenizer(corpus_fingerprint)
        if until == "tokenizer":
            return
        self._tokens(corpus_fingerprint, tokenizer_fingerprint)

    def _corpus(self) -> str:
        from fangcun.corpus import build_corpus, corpus_fingerprint

        fingerprint, inputs = corpus_fingerprint(self.recipe.corpus, self._known_inputs(self.corpus, "corpus"))

        def describe(manifest: Manifest) -> str:
            train, val = manifest.counts["train"], manifest.counts["val"]
            return (
                f"{train['documents'] + val['documents']:,} documents, {train['characters'] + val['characters']:,} "
                f"characters, {val['characters']:,} of them for validation"
            )

        def build(line: Callable[[int, int], None]) -> Manifest:
            return build_corpus(self.recipe.corpus, self.corpus, progress=line, known_inputs=inputs)

        self._stage("corpus", self.corpus, fingerprint, build, describe)
        self._tell_drops()
        return fingerprint

    def _tell_drops(self) -> None:
        """What of the input was not plain UTF-8 text, and where the rest is told."""
        from fangcun.corpus import describe_drops

        report = json.loads((self.corpus / "drops.json").read_text(encoding="utf-8"))
        for line in describe_drops(report):
            self.console.say(f"           {line}")

    def _tokenizer(self, corpus_fingerprint: str) -> str:
        from fangcun.tokenizer import build_tokenizer, tokenizer_fingerprint

        fingerprint, _ = tokenizer_fingerprint(
            self.recipe.tokenizer, corpus_fingerprint, self._known_inputs(self.tokenizer, "tokenizer")
        )

        def describe(manifest: Manifest) -> str:
            source = self.recipe.tokenizer.path or f"trained, {self.recipe.tokenizer.kind}"
            return f"{manifest.counts['vocab_size']:,} ids ({source})"

        def build(line: Callable[[int, int], None]) -> Manifest:
            return build_tokenizer(
                self.recipe.tokenizer, self.corpus, self.tokenizer, corpus_fingerprint=corpus_fingerprint, progress=line
            )

        self._stage("tokenizer", self.tokenizer, fingerprint, build, describe)
        return fingerprint

    def _tokens(self, corpus_fingerprint: str, tokenizer_fp: str) -> str:
        from fangcun.tokens import pack, tokens_fingerprint

        fingerprint = tokens_fingerprint(self.recipe.tokens, corpus_fingerprint, tokenizer_fp)

        def describe(manifest: Manifest) -> str:
            train, val = manifest.counts["train"], manifest.counts["val"]
            note = (
                ""
                if train["comparable"] and val["comparable"]
                else "; bits per byte not comparable: "
                + (
                    train.get("not_comparable_because")
                    or val.get("not_comparable_because")
                    or "the tokenizer loses text"
                )
            )
            return f"{train['tokens']:,} training and {val['tokens']:,} validation tokens, {manifest.settings['dtype']}{note}"

        def build(line: Callable[[int, int], None]) -> Manifest:
            return pack(self.corpus, self.tokenizer, self.tokens, self.recipe.tokens, progress=line)

        self._stage("tokens", self.tokens, fingerprint, build, describe)
        return fingerprint

    def _stage(
        self, name: str, path: Path, fingerprint: str,
        build: Callable[[Callable[[int, int], None]], Manifest], describe: Callable[[Manifest], str],
    ) -> None:  # fmt: skip
        if (path / MANIFEST).is_file():
            manifest = read_manifest(path, name)
            if manifest.fingerprint == fingerprint:
                self.console.say(f"{name:<10} done before, skipped: {describe(manifest)}")
                return
            if self.begun:
                raise FangcunError(
                    f"{path} was made from other inputs or settings than there are now (the text, the tokenizer or the "
                    f"{name} settings changed), and {self.folder} already holds checkpoints trained on it. "
                    "A run is never rebuilt: put the inputs back, or use --out NEW for a new run."
                )
            self.console.say(f"{name:<10} inputs or settings changed, made anew")
        elif self.begun:
            self.console.say(f"{name:<10} is missing, made anew")
        started = time.perf_counter()
        manifest = build(self.console.progress(name))
        if manifest.fingerprint != fingerprint:
            raise FangcunError(f"{name}: the inputs changed while they were read. Run the same command again.")
        self.console.say(f"{name:<10} {describe(manifest)}  [{format_seconds(time.perf_counter() - started)}]")

    def _known_inputs(self, path: Path, kind: str) -> list[dict[str, Any]]:
        return read_manifest(path, kind).inputs if (path / MANIFEST).is_file() else []

    def _use_tokens(self, given: Path) -> None:
        """Tokens of another run: a tokens folder, or a run that has one; its tokenizer lies beside it or is named."""
        self.tokens = given / "tokens" if (given / "tokens" / MANIFEST).is_file() else given
        manifest = read_manifest(self.tokens, "tokens")
        named = self.recipe.tokenizer.path
        if named is None:
            self.tokenizer = self.tokens.parent / "tokenizer"
            if not (self.tokenizer / "tokenizer.json").is_file():
                raise FangcunError(
                    f"tokens.path: {self.tokens} has no tokenizer/ beside it. Name the one it was packed with: --tokenizer.path FOLDER."
                )
        else:
            from fangcun.tokenizer import build_tokenizer, tokenizer_fingerprint

            fingerprint, _ = tokenizer_fingerprint(
                self.recipe.tokenizer, "", self._known_inputs(self.tokenizer, "tokenizer")
            )
            self._stage(
                "tokenizer",
                self.tokenizer,
                fingerprint,
                lambda line: build_tokenizer(self.recipe.tokenizer, None, self.tokenizer, progress=line),
                lambda m: f"{m.counts['vocab_size']:,} ids ({named})",
            )
        self.console.say(f"tokens     from {self.tokens}: {manifest.counts['train']['tokens']:,} training tokens")
