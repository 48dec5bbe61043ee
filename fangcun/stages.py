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
from typing import TYPE_CHECKING, Any

from fangcun.artifacts import MANIFEST, Manifest, describe_changes, read_manifest
from fangcun.config import Recipe, Rules
from fangcun.console import Console, format_seconds
from fangcun.errors import FangcunError
from fangcun.urls import is_url

if TYPE_CHECKING:
    from fangcun.tokens import RemoteTokens

STAGES = ("corpus", "tokenizer", "tokens")
"""Their folders in the run folder, in order."""


def missing_inputs(recipe: Recipe) -> str | None:
    """The first text or tokenizer of the recipe that is not there any more, or None."""
    named = [*(recipe.corpus.paths or []), *([recipe.tokenizer.path] if recipe.tokenizer.path else [])]
    return next((path for path in named if not Path(path).exists() and not glob.has_magic(path)), None)


class Stages:
    """The artefact folders of a run, made or found in turn."""

    def __init__(self, recipe: Recipe, folder: Path, console: Console, *, begun: bool) -> None:
        self.recipe, self.folder, self.console, self.begun = recipe, folder, console, begun
        self.corpus, self.tokenizer = folder / "corpus", folder / "tokenizer"
        self.tokens: Path | RemoteTokens = folder / "tokens"

    def find(self) -> None:
        """On ranks that do not make them: where the first one has put tokenizer and tokens. Raises FangcunError."""
        if is_url(self.recipe.tokens.path):
            self.tokens = self._open_url()
        elif self.recipe.tokens.path is not None:
            given = Path(self.recipe.tokens.path)
            self.tokens = given / "tokens" if (given / "tokens" / MANIFEST).is_file() else given
            if self.recipe.tokenizer.path is None:
                self.tokenizer = self.tokens.parent / "tokenizer"
        for stage in (self.tokenizer, self.tokens):
            if isinstance(stage, Path) and not (stage / MANIFEST).is_file():
                raise FangcunError(
                    f"{stage} is not there on {socket.gethostname()}, but the first process has it. Several machines need a "
                    "shared file system, mounted at the same path."
                )

    def walk(self, *, until: str) -> None:
        """Make or skip the stages up to `until`."""
        if is_url(self.recipe.tokens.path):
            self._use_url()
            return
        if self.recipe.tokens.path is not None:
            self._use_tokens(Path(self.recipe.tokens.path))
            return
        if self.begun and (gone := missing_inputs(self.recipe)):
            stages = [self.folder / stage for stage in STAGES]
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
        if self.recipe.tokens.upload is not None:
            self._upload(self.recipe.tokens.upload)

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
            return build_corpus(recipe.corpus, self.corpus, rules, progress=line, known_inputs=inputs)

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
            return pack(self.corpus, self.tokenizer, self.folder / "tokens", self.recipe.tokens, progress=line)

        now = (
            {"shard_tokens": self.recipe.tokens.shard_tokens},
            [],
            {"corpus": corpus_fingerprint, "tokenizer": tokenizer_fp},
        )
        self._stage("tokens", self.folder / "tokens", fingerprint, build, describe, now)
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
        tokens = given / "tokens" if (given / "tokens" / MANIFEST).is_file() else given
        self.tokens = tokens
        manifest = read_manifest(tokens, "tokens")
        if self.recipe.tokenizer.path is None:
            self.tokenizer = tokens.parent / "tokenizer"
            if not (self.tokenizer / "tokenizer.json").is_file():
                raise FangcunError(
                    f"tokens.path: {tokens} has no tokenizer/ beside it. Name the one it was packed with: --tokenizer.path FOLDER."
                )
        else:
            self._take_tokenizer(self.recipe.tokenizer.path)
        self.console.say(f"tokens     from {tokens}: {manifest.counts['train']['tokens']:,} training tokens")

    def _take_tokenizer(self, named: str) -> None:
        """The tokenizer that the recipe names becomes this run's."""
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

    def _open_url(self) -> RemoteTokens:
        from fangcun.tokens import RemoteTokens

        config = self.recipe.tokens
        return RemoteTokens(
            str(config.path), cache_folder=config.cache_folder, cache_bytes=config.cache_bytes, warn=self.console.warn
        )

    def _use_url(self) -> None:
        """Tokens at a URL; the tokenizer beside them is copied into the run, where none is named."""
        from fangcun.tokens import fetch_artifact, remote_manifest

        tokens = self.tokens = self._open_url()
        if self.recipe.tokenizer.path is None:
            source = tokens.parent.below("tokenizer")
            found = remote_manifest(source, "tokenizer")
            if found is None:
                raise FangcunError(
                    f"tokens.path: {tokens} has no tokenizer/ beside it. Name the one it was packed with: --tokenizer.path FOLDER."
                )
            self._stage(
                "tokenizer",
                self.tokenizer,
                found.fingerprint,
                lambda line: fetch_artifact(source, "tokenizer", self.tokenizer),
                lambda m: f"{m.counts['vocab_size']:,} ids ({source})",
            )
        else:
            self._take_tokenizer(self.recipe.tokenizer.path)
        self.console.say(
            f"tokens     from {tokens}: {tokens.manifest.counts['train']['tokens']:,} training tokens, cached in {tokens.cache.folder}"
        )
        for text in tokens.warnings():
            self.console.warn(text)

    def _upload(self, url: str) -> None:
        """Tokenizer and tokens to a URL, the tokens' manifest last of all."""
        from fangcun.tokens import RemoteFolder, upload_artifact

        target, started = RemoteFolder(url, warn=self.console.warn), time.perf_counter()
        sent_files = sent_bytes = kept_files = 0
        for stage in ("tokenizer", "tokens"):
            line = self.console.progress("upload") if stage == "tokens" else None
            done = upload_artifact(self.folder / stage, stage, target.below(stage), progress=line)
            sent_files, sent_bytes = sent_files + done.sent_files, sent_bytes + done.sent_bytes
            kept_files += done.kept_files
        sent = f"{sent_files:,} files sent ({sent_bytes / 1e6:,.1f} MB)" if sent_files else "nothing to send"
        before = f", {kept_files:,} there before" if kept_files else ""
        self.console.say(
            f"upload     {target}: {sent}{before}  [{format_seconds(time.perf_counter() - started)}]. Train on it: --tokens.path {target}"
        )
