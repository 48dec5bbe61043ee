"""`fangcun import`: a model of another program becomes a run, a configuration a recipe."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def import_path(
    path: str,
    /,
    *,
    out: str | None = None,
    tokenizer: str | None = None,
    characters_from: Annotated[str | None, Parameter(name="--characters-from")] = None,
) -> int:
    """Take in what another program made. A model becomes a run: to write with, evaluate, serve, and train on.

    Models: a Hugging Face folder (GPT-2, GPT-NeoX, Llama, Mistral, Qwen2, Qwen3), a nanoGPT ckpt.pt, a litgpt folder with
    lit_model.pth and model_config.yaml. Configurations: a nanoGPT config/*.py, a litgpt YAML, a Hugging Face config.json;
    they become recipes, with a report of what became of every key. Nothing is executed: Python is read by its syntax, and
    pickles are opened for their weights alone or refused.

    Parameters
    ----------
    path
        The folder or file.
    out
        Of a model, the run folder (default: runs/NAME). Of a configuration, the recipe file (default: it is printed).
    tokenizer
        The tokenizer of a model that has none beside it: a folder or file.
    characters_from
        Of a nanoGPT model of characters, the text that its prepare.py read; meta.pkl is a pickle and is not opened.
    """
    from fangcun.importing import take_in

    taken = take_in(
        Path(path),
        Path(out) if out is not None else None,
        tokenizer=Path(tokenizer) if tokenizer is not None else None,
        characters_from=Path(characters_from) if characters_from is not None else None,
    )
    if taken.out is None:
        print(taken.recipe, end="")
        return 0
    print("\n".join(taken.lines))
    place = shlex.quote(str(taken.out))
    if taken.recipe:
        print(f"Run it: fangcun run {place} --text PATH")
    else:
        recipe = shlex.quote(str(taken.out / "recipe.yaml"))
        print(f"Write with it: fangcun generate {place}. Train it on: fangcun run {recipe} --text PATH")
    return 0
