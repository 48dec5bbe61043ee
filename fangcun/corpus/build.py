"""The corpus stage: read, clean, split, write the artefact."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import shutil
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

from fangcun.artifacts import Manifest, describe_inputs, fingerprint, write_artifact
from fangcun.config.cleaning import DedupConfig, Rules
from fangcun.config.schema import CorpusConfig
from fangcun.corpus.dedup import EXACT, Duplicates, Folding
from fangcun.corpus.documents import Document
from fangcun.corpus.drops import Drops
from fangcun.corpus.files import short_names
from fangcun.corpus.process import read_documents
from fangcun.corpus.readers import Progress, input_files
from fangcun.corpus.report import ReadReport
from fangcun.corpus.shards import ShardWriter, read_shards
from fangcun.corpus.split import choose_share, choose_split, split_by_hash, split_by_tail
from fangcun.errors import ConfigError, FangcunError

# Raised whenever the same input would give other documents than before.
RULES_VERSION = 2
_SPOOL_LEVEL = 1
# Where the text lies, how much damage is allowed and how many processes work do not change what comes out; what a preset
# says stands in the sections that it fills.
_WITHOUT_EFFECT = ("paths", "max_broken_share", "workers", "preset")


def corpus_fingerprint(
    config: CorpusConfig,
    known_inputs: list[dict[str, Any]] | None = None,
    rules: Rules | None = None,
) -> tuple[str, list[dict[str, Any]]]:
    """The fingerprint a corpus built from `config` has, and the description of its input files.

    It covers the settings that matter and each input's content and name below their common folder, in reading order;
    not where that folder lies. Files whose path, size and time stand in `known_inputs` are not read again.
    Raises FangcunError when the inputs are not there.
    """
    files, _ = input_files(config)
    names = short_names(files)
    try:
        inputs = describe_inputs([path.absolute() for path in files], known_inputs)
    except OSError as error:
        raise FangcunError(
            f"{error.filename} cannot be read: {error.strerror}. Check the file and its rights."
        ) from error
    content = [[names[path], entry["sha256"]] for path, entry in zip(files, inputs, strict=True)]
    return fingerprint("corpus", RULES_VERSION, corpus_settings(config, rules), content), inputs


def build_corpus(
    config: CorpusConfig,
    out: Path,
    rules: Rules | None = None,
    *,
    progress: Progress | None = None,
    known_inputs: list[dict[str, Any]] | None = None,
) -> Manifest:
    """Build the corpus artefact at `out` (replacing one that stands there) and return its manifest.

    Writes `train-00000.jsonl.zst`, `val-00000.jsonl.zst` (more when large), `drops.json`, and samples of what was left
    out in `dropped.jsonl.zst`. The same input gives the same bytes. Memory is constant but for some hundred bytes a
    document where duplicates are looked for: until all are known, documents wait in packed files in the folder.
    `progress(done_bytes, total_bytes)` counts bytes of the input files. Raises FangcunError.
    """
    out = Path(out)
    print_of_all, inputs = corpus_fingerprint(config, known_inputs, rules)
    report, drops = ReadReport(), Drops()
    manifest = Manifest("corpus", print_of_all, corpus_settings(config, rules), inputs=inputs)
    with _clear_write_errors(out), write_artifact(out, manifest) as folder:
        dedup = (rules or Rules()).dedup
        found = _duplicates(folder / "sketches", dedup) if dedup.exact else None
        documents = read_documents(config, report, rules, drops=drops, duplicates=found, progress=progress)
        if found is not None:
            documents = _without_copies(documents, found, dedup.near, folder, drops)
        with ShardWriter(folder, "train") as train, ShardWriter(folder, "val") as val:
            writers = {"train": train, "val": val}
            for name, document in _split(config, documents, folder, manifest):
                writers[name].write(document)
            how, share = manifest.settings["val_split_used"], manifest.settings["val_share_used"]
        _check_split(train, val, how, share)
        drops.write_samples(folder)
        mojibake = {"repaired": bool(rules and rules.clean.mojibake), "documents": dict(sorted(drops.mojibake.items()))}
        dropped = {"rules": drops.as_dict(), "masked": drops.masked, "mojibake": mojibake}
        text = json.dumps(report.as_dict() | dropped, ensure_ascii=False, indent=1)
        (folder / "drops.json").write_text(text + "\n", encoding="utf-8", newline="\n")
        manifest.counts = {
            "train": train.counts(),
            "val": val.counts(),
            "files": len(report.files),
            "skipped_files": len(report.skipped),
            "dropped_documents": sum(count["documents"] for count in drops.as_dict().values() if not count["lines"]),
            **{name: report.total(name) for name in ("empty_documents", "broken_records", "broken_bytes")},
        }
    return manifest


def corpus_settings(config: CorpusConfig, rules: Rules | None) -> dict[str, Any]:
    """What decides what comes out. Of the rules what differs from the defaults: these change nothing."""
    if config.preset is not None:
        raise ConfigError(
            f"corpus.preset is '{config.preset}', but nothing has filled in its settings: fangcun.config.load_recipe does. "
            "Give build_corpus the rules themselves."
        )
    settings: dict[str, Any] = {
        name: value for name, value in dataclasses.asdict(config).items() if name not in _WITHOUT_EFFECT
    }
    plain = Rules()
    for name, section in vars(rules or plain).items():
        defaults = vars(getattr(plain, name))
        if different := {leaf: value for leaf, value in vars(section).items() if value != defaults[leaf]}:
            settings[name] = different
    return settings


def _duplicates(folder: Path, dedup: DedupConfig) -> Duplicates:
    return Duplicates(folder, threshold=dedup.similarity, folding=Folding(traditional=True).fingerprint)


def _without_copies(
    documents: Iterable[Document], found: Duplicates, near: bool, folder: Path, drops: Drops
) -> Iterator[Document]:
    """`documents` without the copies among them, which are known when all have been seen: until then they wait in `folder`."""
    with ShardWriter(folder, "all", level=_SPOOL_LEVEL) as spool:
        for document in documents:
            spool.write(document)
    with found:
        copies = found.find(near=near)
    partners = set(copies.copy_of[copies.copy_of >= 0].tolist())
    places = {n: document.source for n, document in enumerate(read_shards(spool.paths)) if n in partners}
    for number, document in enumerate(read_shards(spool.paths)):
        if (partner := int(copies.copy_of[number])) < 0:
            yield document
        elif copies.kind[number] == EXACT:
            drops.drop("exact_duplicate", f"of {places[partner]}", document.text, document.source)
        else:
            reason = f"{copies.similarity[number]:.0%} like {places[partner]}"
            drops.drop("near_duplicate", reason, document.text, document.source)
    for path in spool.paths:
        path.unlink()
    shutil.rmtree(folder / "sketches")


def _split(
    config: CorpusConfig, documents: Iterable[Document], folder: Path, manifest: Manifest
) -> Iterator[tuple[str, Document]]:
    """Documents with their split; writes what `auto` came to into the manifest's settings."""
    if config.val_split == "hash" and config.val_share is not None:
        manifest.settings |= {"val_split_used": "hash", "val_share_used": config.val_share}
        yield from split_by_hash(documents, config.val_share)
        return
    with ShardWriter(folder, "spool", level=_SPOOL_LEVEL) as spool:
        for document in documents:
            spool.write(document)
    how, share = choose_split(config.val_split, spool.documents), choose_share(config.val_share, spool.bytes)
    manifest.settings |= {"val_split_used": how, "val_share_used": share}
    waiting = read_shards(spool.paths)
    yield from split_by_hash(waiting, share) if how == "hash" else split_by_tail(waiting, share, spool.characters)
    for path in spool.paths:
        path.unlink()


def _check_split(train: ShardWriter, val: ShardWriter, how: str, share: float) -> None:
    total = train.documents + val.documents
    if not train.documents:
        raise FangcunError(
            f"No text is left to train on: all {total} documents went to validation (val_split {how}, val_share {share}). Add text, or lower --corpus.val_share."
        )
    if share > 0 and not val.documents:
        raise FangcunError(
            f"No text is held out: none of {total} documents went to validation (val_split {how}, val_share {share}). Add text, raise --corpus.val_share, or use --corpus.val_split tail."
        )


@contextlib.contextmanager
def _clear_write_errors(out: Path) -> Generator[None, None, None]:
    try:
        yield
    except OSError as error:
        remedy = (
            "Free some space"
            if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
            else "Check its rights"
        )
        raise FangcunError(
            f"{out} cannot be written: {error.strerror or error}. {remedy}, or choose another folder with --out."
        ) from error
