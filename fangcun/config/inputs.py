"""What a run needs from outside, looked at before it starts: text, a tokenizer, weights. The last check of a recipe."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Literal

from fangcun.config.loader import LoadedRecipe
from fangcun.errors import ConfigError
from fangcun.urls import is_url

Verb = Literal["run", "demo", "corpus", "tokenizer", "pack", "pretrain"]


def check_inputs(loaded: LoadedRecipe, verb: Verb = "run") -> None:
    """Raise ConfigError for every input that `verb` needs and that is not named or not there, with the flag that names it."""
    recipe, problems = loaded.recipe, []
    if recipe.tokens.path is not None and verb in ("corpus", "tokenizer", "pack"):
        place = _place(loaded, "tokens.path")
        problems.append(
            f"{place}: it names finished tokens, so there is nothing for 'fangcun {verb}' to do. Remove it."
        )
    if recipe.tokens.path is None:
        problems += _text(loaded)
    if verb != "corpus":
        problems += _tokenizer(loaded)
    if verb in ("run", "demo", "pretrain"):
        for key, value in (("tokens.path", recipe.tokens.path), ("init_from", recipe.init_from)):
            if value is not None and not Path(value).exists() and not (key == "tokens.path" and is_url(value)):
                problems.append(f"{_place(loaded, key)}: there is no '{value}'. Give the folder with --{key}.")
    if problems:
        raise ConfigError("\n".join(problems))


def _text(loaded: LoadedRecipe) -> list[str]:
    corpus = loaded.recipe.corpus
    named = {"corpus.paths": corpus.paths or [], "dedup.references": loaded.recipe.dedup.references or []}
    named["corpus.sources"] = [path for source in (corpus.sources or {}).values() for path in source.paths or []]
    if corpus.paths is None and corpus.builtin is None and corpus.sources is None:
        replaced = " (the data section of the imported file is not used)" if loaded.import_report else ""
        return [f"{loaded.name}: no text to train on{replaced}. Name files, folders or globs with --text PATH."]
    remedy = {"corpus.paths": " Name your text with --text PATH."}
    remedy |= dict.fromkeys(("corpus.sources", "dedup.references"), " Check the path, or remove it from the recipe.")
    return [
        f"{_place(loaded, key)}: there is no '{path}'.{remedy.get(key, '')}"
        for key, paths in named.items()
        for path in paths
        if not Path(path).expanduser().exists() and not glob.has_magic(path)
    ]


def _tokenizer(loaded: LoadedRecipe) -> list[str]:
    tokenizer = loaded.recipe.tokenizer
    if tokenizer.path is None:
        # Packed tokens have their tokenizer beside them, and pretrained weights bring theirs.
        if tokenizer.source is None or loaded.recipe.tokens.path or loaded.recipe.init_from:
            return []
        return [
            f"{loaded.name}: this recipe needs a tokenizer that exists; give it with --tokenizer.path PATH. {tokenizer.source}"
        ]
    if not Path(tokenizer.path).exists():
        return [
            f"{_place(loaded, 'tokenizer.path')}: there is no '{tokenizer.path}'. Give yours with --tokenizer.path PATH."
        ]
    return []


def _place(loaded: LoadedRecipe, key: str) -> str:
    origin = loaded.origins.get(key)
    if origin is None or origin.startswith("--"):
        return origin or key
    return f"{origin}: {key}"
