"""The artefacts of a run before its training: corpus, tokenizer and tokens, each made, found, or refused.

A stage is done when its folder's fingerprint matches its inputs and settings. While a run has no checkpoint, a stage
whose inputs or settings changed is made anew, which is said before (rebuild.py), and what stood there is kept beside it;
once there is one, the same change is an error, for a trained model must not lose the text and the tokenizer it was
trained with.
"""

from __future__ import annotations

import contextlib
import glob
import json
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fangcun.artifacts import (
    MANIFEST,
    Manifest,
    Progress,
    Timings,
    Work,
    discard,
    keep_replaced,
    previous_of,
    put_back,
    read_manifest,
)
from fangcun.config import Recipe, Rules
from fangcun.console import Console, format_seconds
from fangcun.errors import FangcunError
from fangcun.rebuild import Stage, agree_to_rebuild, describe_kept
from fangcun.remote import describe_tokens, open_tokens, tokenizer_beside, upload_run
from fangcun.urls import is_url

if TYPE_CHECKING:
    from fangcun.tokens import RemoteTokens

STAGES = ("corpus", "tokenizer", "tokens")
"""Their folders in the run folder, in order."""


def missing_inputs(recipe: Recipe) -> str | None:
    """The first text or tokenizer of the recipe that is not there any more, or None."""
    sources = (recipe.corpus.sources or {}).values()
    named = [
        path
        for paths in (recipe.corpus.paths, recipe.dedup.references, *(s.paths for s in sources))
        for path in paths or []
    ]
    named += [recipe.tokenizer.path] if recipe.tokenizer.path else []
    return next((path for path in named if not Path(path).exists() and not glob.has_magic(path)), None)


class Stages:
    """The artefact folders of a run: planned, then made or found in turn."""

    def __init__(self, recipe: Recipe, folder: Path, console: Console, *, begun: bool) -> None:
        self.recipe, self.folder, self.console, self.begun = recipe, folder, console, begun
        self.corpus, self.tokenizer = folder / "corpus", folder / "tokenizer"
        self.tokens: Path | RemoteTokens = folder / "tokens"
        self._timings = Timings(folder)
        self._planned: list[Stage] = []

    def plan(self, *, until: str, yes: bool = False) -> bool:
        """Learn what is to be done up to stage `until`; nothing is changed yet.

        Where something that stands would be made anew that is said, with what it will cost, and asked when it is much and
        not `yes`; whether it was much is returned. Raises FangcunError for what a begun run refuses or nobody can be asked;
        DeclinedError for a no.
        """
        if self.recipe.tokens.path is not None:
            self._planned = self._beside_given_tokens()
        elif self.begun and (gone := missing_inputs(self.recipe)):
            stages = [self.folder / stage for stage in STAGES]
            if not all((stage / MANIFEST).is_file() for stage in stages):
                raise FangcunError(f"{gone} does not exist, and {self.folder} no longer holds what was made from it.")
            self.console.warn(f"{gone} is gone; going on with what was made from it.")
        else:
            self._planned = self._from_text(until)
        for stage in self._planned:
            if self.begun and stage.standing is not None and stage.state != "done":
                raise FangcunError(
                    f"{stage.path} was made from other inputs or settings than there are now (the text, the tokenizer or "
                    f"the {stage.name} settings changed), and {self.folder} already holds checkpoints trained on it. "
                    "A run is never rebuilt: put the inputs back, or use --out NEW for a new run."
                )
        return agree_to_rebuild(self._planned, self._timings, self.console, folder=self.folder, yes=yes)

    def walk(self) -> None:
        """Make or skip what was planned."""
        for stage in self._planned:
            self._make(stage)
            if stage.name == "corpus":
                self._tell_drops()
        if not isinstance(self.tokens, Path):
            describe_tokens(self.tokens, self.console)
        elif self.recipe.tokens.path is not None:
            n_tokens = read_manifest(self.tokens, "tokens").counts["train"]["tokens"]
            self.console.say(f"tokens     from {self.tokens}: {n_tokens:,} training tokens")
        if self.recipe.tokens.upload is not None and any(stage.name == "tokens" for stage in self._planned):
            upload_run(self.folder, self.recipe.tokens.upload, self.console)

    def _make(self, stage: Stage) -> None:
        name, path = stage.name, stage.path
        if stage.state in ("done", "put back"):  # what a rebuild that is not wanted any more has left
            discard(path.with_name(f"{name}.work"))
        if stage.state == "done":
            assert stage.wanted is not None
            self.console.say(f"{name:<10} done before, skipped: {stage.describe(stage.wanted)}")
            return
        if stage.state == "put back":
            assert stage.wanted is not None
            put_back(path)
            self.console.say(f"{name:<10} put back, not made anew: {stage.describe(stage.wanted)}")
            self._tell_kept(stage)
            return
        if self.begun:
            self.console.say(f"{name:<10} is missing, made anew")
        started = time.perf_counter()
        work = stage.work()
        with self._timings.measure(work, stage.fingerprint, self.console.progress(name)) as line, keep_replaced():
            manifest = stage.wanted = stage.build(line)
        if manifest.fingerprint != stage.fingerprint:
            raise FangcunError(f"{name}: the inputs changed while they were read. Run the same command again.")
        self.console.say(f"{name:<10} {stage.describe(manifest)}  [{format_seconds(time.perf_counter() - started)}]")
        self._tell_kept(stage)

    def _tell_kept(self, stage: Stage) -> None:
        if stage.standing is not None and (kept := describe_kept(stage.path, stage.name)):
            self.console.say(f"           {kept}")

    def find(self) -> None:
        """On ranks that do not make them: where the first one has put tokenizer and tokens. Raises FangcunError."""
        if self.recipe.tokens.path is not None:
            self._find_given(self.recipe.tokens.path)
        for stage in (self.tokenizer, self.tokens):
            if isinstance(stage, Path) and not (stage / MANIFEST).is_file():
                raise FangcunError(
                    f"{stage} is not there on {socket.gethostname()}, but the first process has it. Several machines need a "
                    "shared file system, mounted at the same path."
                )

    def _find_given(self, given: str) -> None:
        if is_url(given):  # its tokenizer is copied into the run
            self.tokens = open_tokens(self.recipe.tokens, self.console)
            return
        self.tokens = Path(given, "tokens") if Path(given, "tokens", MANIFEST).is_file() else Path(given)
        if self.recipe.tokenizer.path is None:
            self.tokenizer = self.tokens.parent / "tokenizer"

    def _beside_given_tokens(self) -> list[Stage]:
        """Tokens of another run: a tokens folder, or a run that has one; its tokenizer lies beside it or is named."""
        self._find_given(str(self.recipe.tokens.path))
        if isinstance(self.tokens, Path):
            read_manifest(self.tokens, "tokens")
        if self.recipe.tokenizer.path is not None:
            return [self._tokenizer_stage(None)]
        if not isinstance(self.tokens, Path):
            return [tokenizer_beside(self.tokens, self.tokenizer)]
        if not (self.tokenizer / "tokenizer.json").is_file():
            raise FangcunError(
                f"tokens.path: {self.tokens} has no tokenizer/ beside it. Name the one it was packed with: --tokenizer.path FOLDER."
            )
        return []

    def _from_text(self, until: str) -> list[Stage]:
        corpus = self._corpus_stage()
        if until == "corpus":
            return [corpus]
        tokenizer = self._tokenizer_stage(corpus)
        return (
            [corpus, tokenizer] if until == "tokenizer" else [corpus, tokenizer, self._tokens_stage(corpus, tokenizer)]
        )

    def _corpus_stage(self) -> Stage:
        from fangcun.corpus import build_corpus, corpus_fingerprint, corpus_settings

        recipe = self.recipe
        rules = Rules(recipe.clean, recipe.filter, recipe.dedup)
        fingerprint, inputs = corpus_fingerprint(recipe.corpus, self._known_inputs(self.corpus, "corpus"), rules)

        def describe(manifest: Manifest) -> str:
            train, val = manifest.counts["train"], manifest.counts["val"]
            return (
                f"{train['documents'] + val['documents']:,} documents, {train['characters'] + val['characters']:,} "
                f"characters, {val['characters']:,} of them for validation"
            )

        def build(line: Progress) -> Manifest:
            def tell(text: str) -> None:
                self.console.say(f"corpus     {text}")

            if recipe.cluster.executor is not None:
                from fangcun.cluster import build_corpus_by_tasks

                return build_corpus_by_tasks(
                    recipe.corpus, self.corpus, recipe.cluster, rules, progress=line, known_inputs=inputs, tell=tell
                )
            return build_corpus(
                recipe.corpus, self.corpus, rules, progress=line, known_inputs=inputs, tell=tell
            )  # fmt: skip

        return Stage(
            "corpus", self.corpus, fingerprint, build, describe,
            lambda: Work("corpus", "read", _size_bytes(inputs)),
            corpus_settings(recipe.corpus, rules), inputs,
        )  # fmt: skip

    def _tell_drops(self) -> None:
        """What of the input was not plain UTF-8 text, and where the rest is told."""
        from fangcun.corpus import describe_drops

        report = json.loads((self.corpus / "drops.json").read_text(encoding="utf-8"))
        for line in describe_drops(report):
            self.console.say(f"           {line}")

    def _tokenizer_stage(self, corpus: Stage | None) -> Stage:
        """corpus: None where only tokens are given, so that there is nothing to try a borrowed tokenizer on."""
        from fangcun.tokenizer import build_tokenizer, tokenizer_fingerprint, tokenizer_settings

        config = self.recipe.tokenizer
        text = corpus.fingerprint if corpus else ""
        fingerprint, inputs = tokenizer_fingerprint(config, text, self._known_inputs(self.tokenizer, "tokenizer"))

        def describe(manifest: Manifest) -> str:
            return f"{manifest.counts['vocab_size']:,} ids ({config.path or f'trained, {config.kind}'})"

        def build(line: Progress) -> Manifest:
            return build_tokenizer(
                config, self.corpus if corpus else None, self.tokenizer, corpus_fingerprint=text or None, progress=line
            )

        def work() -> Work:
            if config.path or corpus is None:
                return Work("tokenizer", "import", 0)
            n_bytes = _text_bytes(corpus)
            if config.kind == "bpe" and n_bytes is not None:
                n_bytes = min(n_bytes, config.sample_bytes)
            return Work("tokenizer", config.kind, n_bytes)

        return Stage(
            "tokenizer", self.tokenizer, fingerprint, build, describe, work,
            tokenizer_settings(config), inputs, {} if config.path else {"corpus": text},
        )  # fmt: skip

    def _tokens_stage(self, corpus: Stage, tokenizer: Stage) -> Stage:
        from fangcun.tokens import pack, tokens_fingerprint

        config = self.recipe.tokens

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

        out = self.folder / "tokens"

        def build(line: Progress) -> Manifest:
            def tell(text: str) -> None:
                self.console.say(f"tokens     {text}")

            if self.recipe.cluster.executor is not None:
                from fangcun.cluster import pack_by_tasks

                return pack_by_tasks(
                    self.corpus, self.tokenizer, out, config, self.recipe.cluster, progress=line, tell=tell
                )
            return pack(self.corpus, self.tokenizer, out, config, progress=line, tell=tell)

        return Stage(
            "tokens", out, tokens_fingerprint(config, corpus.fingerprint, tokenizer.fingerprint), build, describe,
            lambda: Work("tokens", "pack", _text_bytes(corpus)),
            {"shard_tokens": config.shard_tokens}, [],
            {"corpus": corpus.fingerprint, "tokenizer": tokenizer.fingerprint},
        )  # fmt: skip

    def _known_inputs(self, path: Path, kind: str) -> list[dict[str, Any]]:
        """Input files whose content was hashed before: those of what stands there, and of what stood there before."""
        known = read_manifest(path, kind).inputs if (path / MANIFEST).is_file() else []
        with contextlib.suppress(FangcunError):
            known = [*known, *read_manifest(previous_of(path), kind).inputs]
        return known


def _size_bytes(inputs: list[dict[str, Any]]) -> int:
    return sum(entry["size_bytes"] for entry in inputs)


def _text_bytes(corpus: Stage) -> int | None:
    """Text of a corpus; of one that is to be made anew by the one it replaces, in proportion to their inputs."""
    manifest = corpus.wanted or corpus.standing
    if manifest is None:
        return None
    n_bytes = manifest.counts["train"]["bytes"] + manifest.counts["val"]["bytes"]
    if corpus.wanted is not None:
        return n_bytes
    before = _size_bytes(manifest.inputs)
    return round(n_bytes * _size_bytes(corpus.inputs) / before) if before else None
