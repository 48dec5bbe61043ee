"""The artefacts of a run before its training: corpus, tokenizer and tokens, each made, found, or refused.

A stage is done when its folder's fingerprint matches its inputs and settings. While a run has no checkpoint, a stage
whose inputs or settings changed is made anew, and said so; once there is one, the same change is an error, for a
trained model must not lose the text and the tokenizer it was trained with.
"""

from __future__ import annotations

import glob
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fangcun.artifacts import MANIFEST, Manifest, describe_changes, read_manifest
from fangcun.config import Recipe, Rules
from fangcun.console import Console, format_seconds
from fangcun.errors import FangcunError

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
    """The artefact folders of a run, made or found in turn."""

    def __init__(self, recipe: Recipe, folder: Path, console: Console, *, begun: bool) -> None:
        self.recipe, self.folder, self.console, self.begun = recipe, folder, console, begun
        self.corpus, self.tokenizer, self.tokens = (folder / stage for stage in STAGES)

    def find(self) -> None:
        """On ranks that do not make them: where the first one has put tokenizer and tokens. Raises FangcunError."""
        if self.recipe.tokens.path is not None:
            given = Path(self.recipe.tokens.path)
            self.tokens = given / "tokens" if (given / "tokens" / MANIFEST).is_file() else given
            if self.recipe.tokenizer.path is None:
                self.tokenizer = self.tokens.parent / "tokenizer"
        for stage in (self.tokenizer, self.tokens):
            if not (stage / MANIFEST).is_file():
                raise FangcunError(
                    f"{stage} is not there on {socket.gethostname()}, but the first process has it. Several machines need a "
                    "shared file system, mounted at the same path."
                )

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

        def build(line: Callable[[int, int], None]) -> Manifest:
            return build_corpus(
                recipe.corpus, self.corpus, rules, progress=line, known_inputs=inputs,
                tell=lambda text: self.console.say(f"corpus     {text}"),
            )  # fmt: skip

        now = (corpus_settings(recipe.corpus, rules), inputs, {})
        self._stage("corpus", self.corpus, fingerprint, build, describe, now)
        self._tell_drops()
        return fingerprint

    def _tell_drops(self) -> None:
        """What of the input was not plain UTF-8 text, and where the rest is told."""
        from fangcun.corpus import describe_drops

        report = json.loads((self.corpus / "drops.json").read_text(encoding="utf-8"))
        for line in describe_drops(report):
            self.console.say(f"           {line}")

    def _tokenizer(self, corpus_fingerprint: str) -> str:
        from fangcun.tokenizer import build_tokenizer, tokenizer_fingerprint, tokenizer_settings

        fingerprint, inputs = tokenizer_fingerprint(
            self.recipe.tokenizer, corpus_fingerprint, self._known_inputs(self.tokenizer, "tokenizer")
        )

        def describe(manifest: Manifest) -> str:
            source = self.recipe.tokenizer.path or f"trained, {self.recipe.tokenizer.kind}"
            return f"{manifest.counts['vocab_size']:,} ids ({source})"

        def build(line: Callable[[int, int], None]) -> Manifest:
            return build_tokenizer(
                self.recipe.tokenizer, self.corpus, self.tokenizer, corpus_fingerprint=corpus_fingerprint, progress=line
            )

        parents = {} if self.recipe.tokenizer.path else {"corpus": corpus_fingerprint}
        now = (tokenizer_settings(self.recipe.tokenizer), inputs, parents)
        self._stage("tokenizer", self.tokenizer, fingerprint, build, describe, now)
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
            return pack(
                self.corpus, self.tokenizer, self.tokens, self.recipe.tokens, progress=line,
                tell=lambda text: self.console.say(f"tokens     {text}"),
            )  # fmt: skip

        now = (
            {"shard_tokens": self.recipe.tokens.shard_tokens},
            [],
            {"corpus": corpus_fingerprint, "tokenizer": tokenizer_fp},
        )
        self._stage("tokens", self.tokens, fingerprint, build, describe, now)
        return fingerprint

    def _stage(
        self, name: str, path: Path, fingerprint: str,
        build: Callable[[Callable[[int, int], None]], Manifest], describe: Callable[[Manifest], str],
        now: tuple[dict[str, Any], list[dict[str, Any]], dict[str, str]] = ({}, [], {}),
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
            self.console.say(f"{name:<10} made anew: {describe_changes(manifest, *now)}")
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
