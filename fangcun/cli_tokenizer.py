"""`fangcun tokenizer trim` and `fangcun tokenizer report`: borrowed tokenizers cut to size, and set side by side."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from fangcun.errors import ConfigError, FangcunError

if TYPE_CHECKING:
    from fangcun.tokenizer import Tokenizer, Trimmed

_SAMPLE_CHARACTERS = 1 << 21

Paths = Annotated[list[str] | None, Parameter(negative=(), consume_multiple=True)]


def build_tokenizer_app() -> App:
    """The two words behind `fangcun tokenizer` that are no recipes."""
    app = App(
        name="fangcun tokenizer", help_format="plaintext", version_flags=(), suppress_keyboard_interrupt=False
    )  # fmt: skip
    app.command(trim)
    app.command(report)
    return app


def trim(source: str, /, *, text: Paths = None, out: str, size: int | None = None, model: str | None = None) -> int:
    """Keep of a large BPE tokenizer what a text needs, in a folder of its own.

    Bytes and special tokens stay, so every text can still be written. Of the rest those tokens go whose loss lengthens the text
    least. New ids run without a gap in the order of the old ones; id_map.npy holds the new id of each old one.

    Parameters
    ----------
    source
        The tokenizer: tokenizer.json, vocab.json with merges.txt, *.tiktoken, a sentencepiece BPE *.model with byte
        fallback, or a folder or run with one of these.
    text
        Files, folders or globs that the tokenizer shall fit, or a run whose corpus it shall fit.
    out
        Folder to write: tokenizer.json and what belongs to it, id_map.npy, report.json.
    size
        Ids to keep, special tokens included. Default: as many as the text needs to be cut as before.
    model
        A model with this tokenizer (run, checkpoint, Hugging Face folder): out becomes a model folder with its weights,
        embedding and head cut along.
    """
    from fangcun.artifacts import find_weights
    from fangcun.tokenizer import compare_tokens, count_tokens, import_tokenizer, trim_tokenizer

    if not text:
        raise ConfigError("fangcun tokenizer trim needs the text that the tokenizer shall fit: --text PATH…")
    weights = find_weights(model) if model is not None else None
    _check_out(Path(out), weights)
    imported = import_tokenizer(source)
    old = imported.tokenizer
    if weights is not None:
        _check_rows(weights, old)
    sample = _Sample()
    counts = count_tokens(old, sample.of(own_text(text, old)))
    trimmed = trim_tokenizer(old, counts, size, where=source)
    used = int((counts > 0).sum())
    covered = int(counts[trimmed.kept_ids].sum()) / max(1, int(counts.sum()))
    found: dict[str, Any] = {
        "trimmed_from": str(source),
        "format": imported.format,
        "notes": imported.notes,
        "vocab_size": len(trimmed.kept_ids),
        "old_vocab_size": old.vocab_size,
        "needed_tokens": trimmed.needed_tokens,
        "exact": trimmed.exact,
        "text": {"tokens": int(counts.sum()), "ids_used": used, "kept_share": round(covered, 6)},
        "sample": compare_tokens(old, trimmed.tokenizer, sample.texts),
    }
    _write(Path(out), trimmed, found, weights)
    compared = found["sample"]
    print(
        f"{old.vocab_size:,} ids -> {len(trimmed.kept_ids):,}; the text uses {used:,} and needs {trimmed.needed_tokens:,}"
    )
    if trimmed.exact:
        print("The text is cut as before: the same tokens under new ids.")
    else:
        print(
            f"{covered:.2%} of the text's tokens are kept; on a sample {compared['same_pieces_share']:.2%} stand where they "
            f"stood, and it has {compared['more_tokens_share']:.2%} more tokens"
        )
    print(f"Use it: --{'init_from' if weights else 'tokenizer.path'} {out}")
    return 0


def report(
    tokenizers: Annotated[list[str], Parameter(negative=())],
    /,
    *,
    text: Paths = None,
    width: int = 512,
    json_file: Annotated[str | None, Parameter(name="--json")] = None,
    plot: str | None = None,
) -> int:
    """Set tokenizers side by side: how they cut six kinds of text, which hanzi they have, what their vocabulary costs.

    Parameters
    ----------
    tokenizers
        Files, folders or runs.
    text
        Files, folders or globs of your own to cut too, or a run.
    width
        Width of the model that the embedding's share is told for.
    json_file
        Write the figures to this file.
    plot
        Write a picture to this file: .svg, or .html with the table.
    """
    from fangcun.tokenizer import card_view
    from fangcun.tokenizer.card import report_cards

    if plot is not None and Path(plot).suffix not in (".svg", ".html"):
        raise ConfigError(f"--plot: expected a file that ends in .svg or .html, got '{plot}'.")
    if width < 1:
        raise ConfigError(f"--width: expected a whole number above 0, got {width}.")
    pieces: Callable[[Tokenizer], Iterable[str]] | None = (
        (lambda tokenizer: own_text(text, tokenizer)) if text else None
    )
    cards = report_cards(tokenizers, pieces, width=width)
    card_view.show(cards)
    if json_file is not None:
        content = json.dumps(cards, ensure_ascii=False, indent=1)
        Path(json_file).write_text(content + "\n", encoding="utf-8", newline="\n")
    if plot is not None:
        picture = card_view.page(cards) if plot.endswith(".html") else card_view.svg(cards)
        Path(plot).write_text(picture, encoding="utf-8", newline="\n")
    return 0


def own_text(paths: list[str], tokenizer: Tokenizer) -> Iterator[str]:
    """The documents at `paths`, or of the corpus of a run, long ones in pieces that encode as the whole. Raises FangcunError."""
    from fangcun.tokens.pieces import batch_pieces

    for batch in batch_pieces(_documents(paths), tokenizer.encode_documents):
        for piece in batch:
            yield piece.text


def _documents(paths: list[str]) -> Iterator[str]:
    from fangcun.config import CorpusConfig
    from fangcun.corpus import ReadReport, iter_split, read_documents

    for path in paths:
        folder = next((f for f in (Path(path) / "corpus", Path(path)) if (f / "drops.json").is_file()), None)
        if folder is not None:
            documents = (document for split in ("train", "val") for document in iter_split(folder, split))
        else:
            documents = read_documents(CorpusConfig(paths=[path], workers=1), ReadReport())
        for document in documents:
            yield document.text


class _Sample:
    """Some of the texts that go by, evenly spread, in bounded memory; the same ones for the same texts."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._step = 1
        self._characters = 0

    def of(self, texts: Iterable[str]) -> Iterator[str]:
        for number, text in enumerate(texts):
            if number % self._step == 0:
                self.texts.append(text)
                self._characters += len(text)
            while self._characters > _SAMPLE_CHARACTERS and len(self.texts) > 1:
                self.texts = self.texts[::2]
                self._step *= 2
                self._characters = sum(map(len, self.texts))
            yield text


def _check_out(out: Path, weights: Path | None) -> None:
    """Before the work: is there room for what will be written? Raises FangcunError."""
    from fangcun.artifacts import check_replaceable

    if weights is None:
        check_replaceable(out, "tokenizer")
    elif os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):
        raise FangcunError(
            f"{out} is there already and not empty: nothing was changed; choose another folder with --out."
        )


def _check_rows(weights: Path, tokenizer: Tokenizer) -> None:
    from fangcun.model import read_config

    rows = read_config(weights).padded_vocab_size or 0
    if tokenizer.vocab_size > rows:
        raise FangcunError(
            f"The tokenizer has {tokenizer.vocab_size:,} ids, {weights} has rows for {rows:,}: they do not belong together. Name the model's own tokenizer."
        )


def _write(out: Path, trimmed: Trimmed, found: dict[str, Any], weights: Path | None) -> None:
    from fangcun.artifacts import Manifest, fingerprint, write_artifact

    tokenizer = trimmed.tokenizer
    if weights is not None:
        from fangcun.model import slice_model_folder

        with _new_folder(out) as folder:
            slice_model_folder(
                weights, trimmed.kept_ids.tolist(), folder,
                eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id, bos_id=tokenizer.bos_id,
            )  # fmt: skip
            _write_tokenizer(folder, trimmed, found)
        return
    manifest = Manifest("tokenizer", fingerprint("tokenizer", "trim", tokenizer.fingerprint))
    manifest.counts = {"vocab_size": tokenizer.vocab_size, "sample": found["sample"]}
    manifest.settings = {
        "eos_id": tokenizer.eos_id, "pad_id": tokenizer.pad_id, "tokenizer_fingerprint": tokenizer.fingerprint,
    }  # fmt: skip
    with write_artifact(out, manifest) as folder:
        _write_tokenizer(folder, trimmed, found)


def _write_tokenizer(folder: Path, trimmed: Trimmed, found: dict[str, Any]) -> None:
    trimmed.save(folder)
    content = json.dumps(found, ensure_ascii=False, indent=1)
    (folder / "report.json").write_text(content + "\n", encoding="utf-8", newline="\n")


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder that appears at `out` when all is written. A Hugging Face folder like any other: it has no manifest."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f"{out.name}.tmp-{os.getpid()}")
    temporary.mkdir()
    try:
        yield temporary
        if out.is_dir():
            out.rmdir()
        temporary.rename(out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
