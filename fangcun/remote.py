"""A run whose tokens lie at a URL, or are to be copied to one: what the stages (stages.py) need for it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from fangcun.artifacts import Work
from fangcun.config.schema import TokensConfig
from fangcun.console import Console, format_seconds
from fangcun.errors import FangcunError
from fangcun.rebuild import Stage

if TYPE_CHECKING:
    from fangcun.tokens import RemoteTokens


def open_tokens(config: TokensConfig, console: Console) -> RemoteTokens:
    """The tokens at the URL tokens.path. Raises FangcunError."""
    from fangcun.tokens import RemoteTokens

    return RemoteTokens(
        str(config.path), cache_folder=config.cache_folder, cache_bytes=config.cache_bytes, warn=console.warn
    )


def tokenizer_beside(tokens: RemoteTokens, path: Path) -> Stage:
    """The stage that copies the tokenizer which lies beside tokens to `path`. Raises FangcunError where there is none."""
    from fangcun.tokens import fetch_artifact, remote_manifest

    source = tokens.parent.below("tokenizer")
    found = remote_manifest(source, "tokenizer")
    if found is None:
        raise FangcunError(
            f"tokens.path: {tokens} has no tokenizer/ beside it. Name the one it was packed with: --tokenizer.path FOLDER."
        )
    return Stage(
        "tokenizer", path, found.fingerprint,
        lambda line: fetch_artifact(source, "tokenizer", path),
        lambda manifest: f"{manifest.counts['vocab_size']:,} ids ({source})",
        lambda: Work("tokenizer", "import", 0),
        found.settings, found.inputs, found.parents,
    )  # fmt: skip


def describe_tokens(tokens: RemoteTokens, console: Console) -> None:
    """Say where the tokens come from, and warn of a cache that is too small."""
    n_tokens = tokens.manifest.counts["train"]["tokens"]
    console.say(f"tokens     from {tokens}: {n_tokens:,} training tokens, cached in {tokens.cache.folder}")
    for text in tokens.warnings():
        console.warn(text)


def upload_run(folder: Path, url: str, console: Console) -> None:
    """Copy a run's tokenizer and tokens to a URL, the manifest of the tokens last of all. Raises FangcunError."""
    from fangcun.tokens import RemoteFolder, upload_artifact

    target, started = RemoteFolder(url, warn=console.warn), time.perf_counter()
    sent_files = sent_bytes = kept_files = 0
    for stage in ("tokenizer", "tokens"):
        line = console.progress("upload") if stage == "tokens" else None
        done = upload_artifact(folder / stage, stage, target.below(stage), progress=line)
        sent_files, sent_bytes = sent_files + done.sent_files, sent_bytes + done.sent_bytes
        kept_files += done.kept_files
    sent = f"{sent_files:,} files sent ({sent_bytes / 1e6:,.1f} MB)" if sent_files else "nothing to send"
    before = f", {kept_files:,} there before" if kept_files else ""
    took = format_seconds(time.perf_counter() - started)
    console.say(f"upload     {target}: {sent}{before}  [{took}]. Train on it: --tokens.path {target}")
