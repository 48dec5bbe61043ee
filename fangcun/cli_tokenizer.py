"""`fangcun tokenizer trim` and `fangcun tokenizer report`: a borrowed tokenizer made to fit, and tokenizers side by side."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from fangcun.errors import ConfigError

if TYPE_CHECKING:
    from fangcun.tokenizer.trim import TrimmedTokenizer

WORDS = ("trim", "report")
Words = Annotated[list[str] | None, Parameter(negative=(), consume_multiple=True)]


def build_app() -> App:
    """The application behind `fangcun tokenizer`."""
    app = App(
        name="fangcun tokenizer",
        help="Make a borrowed tokenizer fit a corpus; compare tokenizers.",
        help_format="plaintext",
        suppress_keyboard_interrupt=False,
        version_flags=(),
    )
    app.command(trim)
    app.command(report)
    return app


def trim(
    source: str,
    /,
    *,
    text: Words = None,
    size: int | None = None,
    out: str,
    model: str | None = None,
) -> int:
    """Keep of a large BPE tokenizer what a corpus needs; with --model, the rows of a model that go with it.

    Parameters
    ----------
    source
        A tokenizer: a folder or file of any known format (byte-level BPE, or sentencepiece BPE with byte fallback).
    text
        Files, folders or globs of the corpus.
    size
        Ids that are kept, all bytes and special tokens included. Default: all that the corpus uses.
    out
        A folder for the result: tokenizer files, id_map.npy (old id -> new id, -1 where removed), report.json; with
        --model a whole checkpoint.
    model
        A model of this tokenizer (a run, a checkpoint or a Hugging Face folder), to be written with the rows that are
        kept.
    """
    if not text:
        raise ConfigError("fangcun tokenizer trim needs the corpus to trim to: --text PATH….")
    from fangcun.artifacts import check_replaceable
    from fangcun.tokenizer import import_tokenizer
    from fangcun.tokenizer.trim import trim_tokenizer, write_trimmed

    check_replaceable(Path(out), "checkpoint" if model else "tokenizer")
    borrowed = import_tokenizer(source)
    trimmed = trim_tokenizer(borrowed.tokenizer, documents(text), size, where=source)
    if model is None:
        write_trimmed(trimmed, Path(out), borrowed.tokenizer.fingerprint)
    else:
        _write_model(trimmed, model, Path(out))
    _say_trimmed(trimmed.report, out)
    return 0


def report(
    *sources: str,
    text: Words = None,
    width: int = 512,
    json: str | None = None,
    plot: str | None = None,
) -> int:
    """Tokenizers side by side: characters and bytes a token, hanzi that are tokens, cost of the embedding, round trip.

    Parameters
    ----------
    sources
        Tokenizer folders or files of any known format, or runs.
    text
        Files, folders or globs of your own text, to be measured beside the built-in texts.
    width
        Width of the model (n_embd) for the share of the embedding.
    json
        A file for all figures.
    plot
        A file for a picture, .svg or .html.
    """
    if not sources:
        raise ConfigError("fangcun tokenizer report needs a tokenizer: fangcun tokenizer report PATH….")
    if width < 1:
        raise ConfigError(f"--width is {width}, expected at least 1.")
    if plot is not None and Path(plot).suffix.lower() not in (".svg", ".html"):
        raise ConfigError(f"--plot {plot}: expected a file that ends in .svg or .html.")
    from fangcun.artifacts import write_text_atomic
    from fangcun.tokenizer import import_tokenizer
    from fangcun.tokenizer.card_plot import write_plot
    from fangcun.tokenizer.card_table import print_card
    from fangcun.tokenizer.report_card import names_of, report_card

    opened = {name: import_tokenizer(path).tokenizer for name, path in names_of(sources).items()}
    card = report_card(opened, (lambda: documents(text)) if text else None, width=width)
    for each, path in zip(card["tokenizers"], sources, strict=True):
        each["path"] = path
    print_card(card)
    if json is not None:
        from json import dumps

        Path(json).absolute().parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(Path(json).absolute(), dumps(card, ensure_ascii=False, indent=1) + "\n")
    if plot is not None:
        write_plot(card, Path(plot))
    return 0


def documents(paths: list[str]) -> Iterator[str]:
    """The documents of files, cleaned as a recipe without a preset cleans them."""
    from fangcun.config.schema import CorpusConfig
    from fangcun.corpus import ReadReport, read_documents

    for document in read_documents(CorpusConfig(paths=paths), ReadReport()):
        yield document.text


def _write_model(trimmed: TrimmedTokenizer, source: str, out: Path) -> None:
    """A whole checkpoint: sliced weights in the precision that they are stored in, the tokenizer, generation settings."""
    import json

    import torch

    from fangcun.artifacts import Manifest, find_weights, write_artifact
    from fangcun.model import load_model, save_model, slice_vocabulary

    folder = find_weights(source)
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    dtype = getattr(torch, str(raw.get("dtype") or raw.get("torch_dtype")), torch.float32)
    model = slice_vocabulary(load_model(folder, dtype=dtype), trimmed.kept.tolist())
    words = trimmed.tokenizer
    with write_artifact(out, Manifest("checkpoint", settings={"trimmed_from": source})) as target:
        save_model(model, target, dtype, eos_id=words.eos_id, pad_id=words.pad_id, bos_id=words.bos_id)
        trimmed.save(target)
        _carry_generation(folder / "generation_config.json", target / "generation_config.json", trimmed)


def _carry_generation(old: Path, new: Path, trimmed: TrimmedTokenizer) -> None:
    """Settings of the old generation_config.json beside the new ones, its ids renumbered: several ends stay several."""
    import json

    if not old.is_file():
        return
    given: dict[str, Any] = json.loads(old.read_text(encoding="utf-8"))
    ours: dict[str, Any] = json.loads(new.read_text(encoding="utf-8"))

    def renumbered(value: Any) -> Any:
        if isinstance(value, list):
            return [renumbered(each) for each in value]
        return int(trimmed.id_map[value])

    for key, value in given.items():
        if key.endswith("_token_id") and value is not None:
            ours[key] = renumbered(value)
        elif key not in ours and key != "suppress_tokens":
            ours[key] = value
    new.write_text(json.dumps(ours, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _say_trimmed(report: dict[str, Any], out: str) -> None:
    sample = report["sample"]
    print(
        f"{report['old_vocab_size']:,} -> {report['vocab_size']:,} ids; kept for {report['usage_kept_share']:.2%} of the "
        f"corpus's tokens ({report['used_tokens_removed']:,} of {report['used_tokens']:,} used ids removed, "
        f"{report['filled_up']:,} filled up)."
    )
    print(
        f"On the beginning of the corpus {sample['same_pieces_share']:.2%} of the pieces are the same, and there are "
        f"{sample['more_tokens']:+.2%} tokens. Written to {out}"
    )
    if not sample["gives_the_same_text_back"]:
        print("warning: on some text the trimmed tokenizer does not give back what the old one gives.", file=sys.stderr)
