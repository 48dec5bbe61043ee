"""`take_in`: whatever a path is, the run or the recipe that it becomes."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from fangcun.artifacts import write_text_atomic
from fangcun.config import count_parameters
from fangcun.errors import ConfigError, FangcunError
from fangcun.importing.characters import characters_of, fit_characters
from fangcun.importing.foreign import ForeignModel, sizes_agree
from fangcun.importing.huggingface import read_huggingface
from fangcun.importing.kinds import find_kind
from fangcun.importing.litgpt import read_litgpt
from fangcun.importing.nanogpt import read_nanogpt
from fangcun.importing.recipe import read_config_json, read_recipe, render_recipe
from fangcun.importing.run import check_free, write_run
from fangcun.tokenizer import Tokenizer, import_tokenizer

_READERS = {"huggingface": read_huggingface, "nanogpt": read_nanogpt, "litgpt": read_litgpt}
_GPT2_IDS = 50257
_WIDE_GAP = 1024


@dataclass
class Taken:
    """What an import made."""

    out: Path | None
    """The run folder or recipe file; None where the recipe is to be printed."""
    recipe: str = ""
    """The recipe's text, where it became one."""
    lines: list[str] = field(default_factory=list)
    """What to tell the user."""


def take_in(
    path: Path, out: Path | None = None, *, tokenizer: Path | None = None, characters_from: Path | None = None
) -> Taken:
    """Make of `path` a run in the folder `out` (default: runs/NAME), or a recipe in the file `out` (None: its text alone).

    tokenizer: that of a model that has none beside it. characters_from: the text whose characters a nanoGPT model reads.
    Raises FangcunError: see the readers of this room; nothing is written then.
    """
    kind, place = find_kind(path)
    if kind in ("recipe", "config.json"):
        if tokenizer is not None or characters_from is not None:
            raise ConfigError("--tokenizer and --characters-from belong to models; a recipe has --tokenizer.path.")
        return _recipe(place, out, json_file=kind == "config.json")
    if tokenizer is not None and characters_from is not None:
        raise ConfigError("--tokenizer and --characters-from exclude each other: name one of them.")
    if characters_from is not None and kind != "nanogpt":
        raise ConfigError(
            "--characters-from: only models of nanoGPT's have its characters. Name the tokenizer with --tokenizer."
        )
    out = out or Path("runs") / _name(place)
    check_free(out)
    # The tokenizer comes first: it opens in milliseconds, and without it the weights need not be read.
    found = characters_of(characters_from) if characters_from is not None else None
    where, notes = str(characters_from), []
    if found is None and kind != "nanogpt":
        found, where, notes = _find_tokenizer(
            tokenizer or (place if place.is_dir() else place.parent), tokenizer is not None
        )
    foreign = _READERS[kind](place)
    rows = int(foreign.model.head_weight.shape[0])
    if characters_from is not None and found is not None:
        foreign = fit_characters(foreign, found, characters_from)
    elif found is None:
        found, where, notes = _find_for_nanogpt(foreign, tokenizer, rows)
    sizes_agree(foreign.model, found.vocab_size, where)
    if rows - found.vocab_size >= _WIDE_GAP:
        notes.append(
            f"The model has rows for {rows:,} ids, the tokenizer only {found.vocab_size:,}: do they belong together?"
        )
    write_run(foreign, found, out)
    return Taken(
        out, lines=[_describe(foreign, found, path, out), *(f"           {text}" for text in foreign.notes + notes)]
    )


def _recipe(file: Path, out: Path | None, *, json_file: bool) -> Taken:
    if out is not None and out.exists():
        raise FangcunError(f"{out} exists; nothing is ever written over. Choose another file with --out.")
    recipe, report = read_config_json(file) if json_file else read_recipe(file)
    text = render_recipe(recipe, report)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(out, text)
    return Taken(out, text, str(report).splitlines())


def _name(place: Path) -> str:
    """runs/NAME: the folder's name, of a checkpoint file that of its folder."""
    folder = Path(os.path.abspath(place if place.is_dir() else place.parent))  # noqa: PTH100 - keeps links
    return folder.name or "imported"


def _find_tokenizer(path: Path, named: bool) -> tuple[Tokenizer, str, list[str]]:
    try:
        imported = import_tokenizer(path)
    except FangcunError as error:
        if named:
            raise
        raise FangcunError(f"{error} Or name a tokenizer that lies elsewhere: --tokenizer PATH.") from error
    return imported.tokenizer, str(path), imported.notes


def _find_for_nanogpt(foreign: ForeignModel, named: Path | None, rows: int) -> tuple[Tokenizer, str, list[str]]:
    if named is not None:
        return _find_tokenizer(named, True)
    if rows >= _GPT2_IDS:
        raise FangcunError(
            f"{foreign.folder}: a checkpoint of nanoGPT's has no tokenizer beside it. With {rows:,} rows it reads GPT-2's: --tokenizer PATH (tokenizer.json, or vocab.json and merges.txt)."
        )
    text = f"data/{foreign.facts['dataset']}/input.txt" if "dataset" in foreign.facts else "input.txt"
    raise FangcunError(
        f"{foreign.folder}: a checkpoint of nanoGPT's has no tokenizer beside it, and its meta.pkl is a pickle, which is not opened. With {rows:,} rows it reads characters: --characters-from {text} (the text that its prepare.py read), or --tokenizer PATH."
    )


def _describe(foreign: ForeignModel, tokenizer: Tokenizer, path: Path, out: Path) -> str:
    config = foreign.model.config
    facts = "".join(
        f", {name} {value if isinstance(value, str) else format(value, 'g')}" for name, value in foreign.facts.items()
    )
    return (
        f"imported   {foreign.format} {path}{facts}: {config.family}, {count_parameters(config):,} parameters, "
        f"context {config.block_size:,}, {tokenizer.vocab_size:,} ids"
    )
