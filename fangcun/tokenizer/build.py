"""The tokenizer artefact: trained on a corpus, or one that exists taken over as it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fangcun.artifacts import Manifest, describe_inputs, fingerprint, read_manifest, write_artifact
from fangcun.config.schema import TokenizerConfig
from fangcun.corpus import iter_split
from fangcun.errors import FangcunError
from fangcun.tokenizer.convert import import_tokenizer, source_files
from fangcun.tokenizer.core import Tokenizer
from fangcun.tokenizer.report import SAMPLE_BYTES, measure
from fangcun.tokenizer.sample import evenly
from fangcun.tokenizer.train import train_bpe, train_char

Progress = Callable[[int, int], None]

# Raised whenever the same text and settings would give another tokenizer than before.
RULES_VERSION = 1
_CHECK_BYTES = 200_000


def tokenizer_settings(config: TokenizerConfig) -> dict[str, Any]:
    """The settings that decide what comes out."""
    if config.path is not None:
        return {"path": config.path}
    if config.kind == "char":
        return {"kind": "char"}
    own = {"gb2312": config.gb2312} if config.trainer == "fangcun" else {}
    return own | {
        "kind": "bpe",
        "vocab_size": config.vocab_size,
        "trainer": config.trainer,
        "max_han_run": config.max_han_run,
        "sample_bytes": config.sample_bytes,
    }


def tokenizer_fingerprint(
    config: TokenizerConfig, corpus_fingerprint: str, known_inputs: list[dict[str, Any]] | None = None
) -> tuple[str, list[dict[str, Any]]]:
    """The fingerprint that a tokenizer built from `config` has, and the description of its input files.

    A borrowed tokenizer depends on its files alone, wherever they lie; a trained one on the corpus and the settings of
    its kind. Files whose path, size and time stand in `known_inputs` are not read again. Raises FangcunError when
    `config.path` is no tokenizer.
    """
    if config.path is None:
        return fingerprint("tokenizer", RULES_VERSION, tokenizer_settings(config), corpus_fingerprint), []
    inputs = describe_inputs([file.absolute() for file in source_files(config.path)], known_inputs)
    content = [[Path(entry["path"]).name, entry["sha256"]] for entry in inputs]
    return fingerprint("tokenizer", RULES_VERSION, "import", content), inputs


def build_tokenizer(
    config: TokenizerConfig,
    corpus: Path | None,
    out: Path,
    progress: Progress | None = None,
    *,
    corpus_fingerprint: str | None = None,
    known_inputs: list[dict[str, Any]] | None = None,
) -> Manifest:
    """Build the tokenizer artefact at `out` and return its manifest.

    `corpus` is a corpus artefact: BPE is trained on its training split, the characters are taken from both, and a
    borrowed tokenizer is checked and measured on it (it may be None then). `progress(done, total)` counts bytes of text
    read, then (trainer fangcun) tokens made. Raises FangcunError.
    """
    if config.path is None and corpus is None:
        raise FangcunError(
            "A tokenizer is trained on a corpus, and none was given. Name text (--text PATH) or an existing tokenizer (--tokenizer.path PATH)."
        )
    if corpus is not None and corpus_fingerprint is None:
        corpus_fingerprint = read_manifest(corpus, "corpus").fingerprint
    print_of_all, inputs = tokenizer_fingerprint(config, corpus_fingerprint or "", known_inputs)
    manifest = Manifest("tokenizer", print_of_all, tokenizer_settings(config), inputs=inputs)
    report: dict[str, Any] = {}
    if config.path is not None:
        imported = import_tokenizer(config.path, check_texts=_sample(corpus, _CHECK_BYTES))
        tokenizer = imported.tokenizer
        report = {"imported_from": str(config.path), "format": imported.format, "notes": imported.notes}
    else:
        assert corpus is not None
        manifest.parents = {"corpus": corpus_fingerprint or ""}
        tokenizer, notes = _train(config, corpus, progress)
        report = {"trained": config.kind, "notes": notes}
    measured = measure(tokenizer, _sample(corpus, SAMPLE_BYTES))
    report = {"vocab_size": tokenizer.vocab_size, **report, "sample": measured}
    manifest.counts = {"vocab_size": tokenizer.vocab_size, "sample": measured}
    manifest.settings |= {
        "eos_id": tokenizer.eos_id, "pad_id": tokenizer.pad_id, "tokenizer_fingerprint": tokenizer.fingerprint,
    }  # fmt: skip
    with write_artifact(Path(out), manifest) as folder:
        tokenizer.save(folder)
        text = json.dumps(report, ensure_ascii=False, indent=1)
        (folder / "report.json").write_text(text + "\n", encoding="utf-8", newline="\n")
    return manifest


def _train(config: TokenizerConfig, corpus: Path, progress: Progress | None) -> tuple[Tokenizer, list[str]]:
    counts = read_manifest(corpus, "corpus").counts
    sizes = {split: int(counts[split]["bytes"]) for split in ("train", "val")}
    if config.kind == "char":
        everything = (document.text for split in ("train", "val") for document in iter_split(corpus, split))
        total_bytes = sum(sizes.values())
        return train_char(evenly(everything, total_bytes, total_bytes, progress)), []
    texts = (document.text for document in iter_split(corpus, "train"))
    tokenizer, notes = train_bpe(
        evenly(texts, sizes["train"], config.sample_bytes, progress),
        vocab_size=config.vocab_size,
        max_han_run=config.max_han_run,
        trainer=config.trainer,
        gb2312=config.gb2312,
        progress=progress,
    )
    if sizes["train"] > config.sample_bytes:
        notes.append(
            f"Trained on about {config.sample_bytes:,} of {sizes['train']:,} bytes, evenly spread (tokenizer.sample_bytes)."
        )
    return tokenizer, notes


def _sample(corpus: Path | None, limit_bytes: int) -> Iterator[str]:
    """Evenly spread text of the validation split, or of the training split where that is empty."""
    if corpus is None:
        return
    counts = read_manifest(corpus, "corpus").counts
    split = "val" if counts["val"]["bytes"] else "train"
    yield from evenly((d.text for d in iter_split(corpus, split)), int(counts[split]["bytes"]), limit_bytes)
