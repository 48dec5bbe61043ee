"""The corpus stage: read, clean, compare, split, write the artefact. A killed one goes on where it was."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

from fangcun.artifacts import (
    Manifest,
    describe_inputs,
    discard,
    fingerprint,
    refuse_work_of_tasks,
    write_artifact,
)
from fangcun.config.cleaning import DedupConfig, Rules
from fangcun.config.corpus import SourceConfig
from fangcun.config.schema import CorpusConfig
from fangcun.corpus.dedup import Folding, References
from fangcun.corpus.drops import Drops
from fangcun.corpus.files import STATE_FILE
from fangcun.corpus.finish import Finisher, Written, check_split, cut_slices, decide, split_settings, write_splits
from fangcun.corpus.process import check_kept, work_batches
from fangcun.corpus.readers import Progress, read_raw
from fangcun.corpus.report import ReadReport
from fangcun.corpus.schemas import questions
from fangcun.corpus.shards import ShardWriter
from fangcun.corpus.sources import Source, corpus_sources
from fangcun.corpus.work import Work, read_state
from fangcun.corpus.works import Works
from fangcun.errors import ConfigError, FangcunError

# Raised whenever the same input would give other documents than before.
RULES_VERSION = 2
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
    return _fingerprint(corpus_sources(config, rules), config, known_inputs, rules)


def _fingerprint(
    sources: Sequence[Source], config: CorpusConfig, known_inputs: list[dict[str, Any]] | None, rules: Rules | None
) -> tuple[str, list[dict[str, Any]]]:
    named = [([source.names[path]], path) for source in sources for path in source.files]
    references = _reference_source(rules)
    if references is not None:
        with _of_references():
            named += [(["references", references.names[path]], path) for path in references.files]
    try:
        inputs = describe_inputs([path.absolute() for _, path in named], known_inputs)
    except OSError as error:
        raise FangcunError(
            f"{error.filename} cannot be read: {error.strerror}. Check the file and its rights."
        ) from error
    content = [[*name, entry["sha256"]] for (name, _), entry in zip(named, inputs, strict=True)]
    return fingerprint("corpus", RULES_VERSION, corpus_settings(config, rules), content), inputs


def build_corpus(
    config: CorpusConfig,
    out: Path,
    rules: Rules | None = None,
    *,
    progress: Progress | None = None,
    known_inputs: list[dict[str, Any]] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Manifest:
    """Build the corpus artefact at `out` (replacing one that stands there) and return its manifest.

    Writes `train-00000.jsonl.zst`, `val-00000.jsonl.zst` (more when large), `drops.json`, and samples of what was left
    out in `dropped.jsonl.zst`. The same input gives the same bytes. Memory is constant but for some hundred bytes a
    document where duplicates are looked for. Until all documents are known they wait in packed files beside `out`, in
    `NAME.work`; killed on the way, a build of the same corpus goes on from there, and says so to `tell`.
    `progress(done_bytes, total_bytes)` counts bytes of the input files. Raises FangcunError.
    """
    out = Path(out)
    refuse_work_of_tasks(work_folder(out))
    sources = corpus_sources(config, rules)
    print_of_all, inputs = _fingerprint(sources, config, known_inputs, rules)
    manifest = Manifest("corpus", print_of_all, corpus_settings(config, rules), inputs=inputs)
    waiting = work_folder(out)
    if tell is not None and (waiting / STATE_FILE).is_file() and not read_state(waiting, print_of_all):
        tell(f"begun anew: what waits in {waiting} is of other text or settings")
    with (
        clear_write_errors(out),
        write_artifact(out, manifest) as folder,
        Work(work_folder(out), print_of_all, sources) as work,
    ):
        first_pass(work, config, sources, progress=progress, tell=tell)
        check_kept(config, work.report or ReadReport(), work.drops, work.documents)
        settings, manifest.counts = second_pass(work, config, sources, folder)
        manifest.settings |= settings
    discard(work_folder(out))
    return manifest


def second_pass(
    work: Work | Works, config: CorpusConfig, sources: Sequence[Source], folder: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write all files of the artefact into `folder`; what the manifest says in `settings`, and its `counts`."""
    decided = decide(work, config, sources)
    drops = Drops.restored(work.drops.state())
    (everything,) = cut_slices(work, decided, [0, work.documents])
    finisher = Finisher(work.stored, everything, decided, sources)
    if work.rules.dedup.held_out:
        finisher.keep_out((document.source, document.text) for document in finisher.held_out_texts())
    with ShardWriter(folder, "train") as train, ShardWriter(folder, "val") as val:
        written = write_splits(finisher, sources, drops, {"train": train, "val": val})
    counts = {"train": train.counts(), "val": val.counts()}
    check_split(train.documents, val.documents, decided, drops.documents("held_out"))
    return split_settings(decided, sources), write_report(
        folder, config, sources, work.report or ReadReport(), drops, counts, written
    )


def write_report(
    folder: Path, config: CorpusConfig, sources: Sequence[Source], report: ReadReport, drops: Drops,
    splits: dict[str, dict[str, int]], written: Written,
) -> dict[str, Any]:  # fmt: skip
    """Write what was read and left out into `folder`; returns the counts of the manifest. `splits`: counts of each split."""
    drops.write_samples(folder)
    mojibake = {
        "repaired": any(source.rules.clean.mojibake for source in sources),
        "documents": dict(sorted(drops.mojibake.items())),
    }
    dropped = {"rules": drops.as_dict(), "masked": drops.masked, "mojibake": mojibake}
    text = json.dumps(report.as_dict() | dropped, ensure_ascii=False, indent=1)
    (folder / "drops.json").write_text(text + "\n", encoding="utf-8", newline="\n")
    counts: dict[str, Any] = {
        **splits,
        "files": len(report.files),
        "skipped_files": len(report.skipped),
        "dropped_documents": sum(count["documents"] for count in drops.as_dict().values() if not count["lines"]),
        **{name: report.total(name) for name in ("empty_documents", "broken_records", "broken_bytes")},
    }
    if config.sources is not None:
        for split, of_split in written.sources.items():
            # Each source, in reading order: the documents of a split lie one source after the other.
            nothing = {"documents": 0, "characters": 0, "bytes": 0}
            counts[split]["sources"] = {source.name: of_split.get(source.name, nothing) for source in sources}
    return counts


def work_folder(out: Path) -> Path:
    """Where a corpus waits while it is being built."""
    return out.with_name(f"{out.name}.work")


def first_pass(
    work: Work,
    config: CorpusConfig,
    sources: Sequence[Source],
    *,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> None:
    """Read, clean and filter what `work` does not have yet."""
    if work.read and tell is not None:
        tell(f"going on from {work.folder}: {work.read:,} documents were read before")
    if work.report is not None:
        return
    report = ReadReport()
    references = _references(work.rules.dedup)
    batches = work_batches(
        sources, report, workers=config.workers, references=references, skip=work.skip, progress=progress
    )
    for batch in batches:
        work.add(batch)
    work.finish(report)


def _reference_source(rules: Rules | None) -> Source | None:
    """The files of `dedup.references`, which training must not see."""
    paths = rules.dedup.references if rules is not None else None
    return Source(CorpusConfig(paths=paths), name="references") if paths else None


def _references(dedup: DedupConfig) -> References | None:
    source = _reference_source(Rules(dedup=dedup))
    if source is None:
        return None
    texts = ((raw.place, raw.text) for raw in read_raw(source, ReadReport(), texts=questions))
    with _of_references():
        references = References(texts, Folding(traditional=True), ngram_characters=dedup.overlap_characters)
    if not references:
        raise FangcunError(
            f"dedup.references: {', '.join(dedup.references or [])} holds no text of 13 characters or more to look for."
        )
    return references


@contextlib.contextmanager
def _of_references() -> Generator[None, None, None]:
    try:
        yield
    except FangcunError as error:
        raise FangcunError(f"dedup.references: {error} Name only files with questions, or other text.") from error


def corpus_settings(config: CorpusConfig, rules: Rules | None) -> dict[str, Any]:
    """What decides what comes out. Of the rules what differs from the defaults: these change nothing."""
    if config.preset is not None:
        raise ConfigError(
            f"corpus.preset is '{config.preset}', but nothing has filled in its settings: fangcun.config.load_recipe does. "
            "Give build_corpus the rules themselves."
        )
    settings: dict[str, Any] = {
        name: value
        for name, value in dataclasses.asdict(config).items()
        if name not in _WITHOUT_EFFECT and (name != "sources" or value is not None)
    }
    if config.sources is not None:
        settings["sources"] = {name: _source_settings(source) for name, source in config.sources.items()}
    plain = Rules()
    for name, section in vars(rules or plain).items():
        if different := _different(section, getattr(plain, name)):
            settings[name] = different
    if "dedup" in settings and "references" in settings["dedup"]:
        settings["dedup"]["references"] = True  # what they say stands with the inputs, where they lie does not matter
    return settings


def _different(section: Any, plain: Any) -> dict[str, Any]:
    return {leaf: value for leaf, value in vars(section).items() if value != getattr(plain, leaf)}


def _source_settings(source: SourceConfig) -> dict[str, Any]:
    settings = {
        name: value
        for name, value in vars(source).items()
        if value is not None and name not in (*_WITHOUT_EFFECT, "clean", "filter")
    }
    for name, section, plain in (("clean", source.clean, Rules().clean), ("filter", source.filter, Rules().filter)):
        if section is not None:
            settings[name] = _different(section, plain)
    return settings


@contextlib.contextmanager
def clear_write_errors(out: Path) -> Generator[None, None, None]:
    """Turn an error of the disk, while `out` is written, into FangcunError."""
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
