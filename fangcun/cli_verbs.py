"""Verbs beside those of a recipe: write with a model, take over token files, list recipes, submit jobs. Each imports what it
needs itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from fangcun.errors import ConfigError, did_you_mean


def generate(
    path: str,
    /,
    *,
    prompt: str = "",
    max_new_tokens: int = 256,
    temperature: float = 0.8,
    top_k: int = 50,
    top_p: float = 1.0,
    repetition_penalty: float = 1.0,
    seed: int | None = None,
    stop: Annotated[list[str] | None, Parameter(negative=(), consume_multiple=True)] = None,
    stream: Annotated[bool, Parameter(negative=())] = False,
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    device: str = "auto",
) -> int:
    """Continue a prompt with a trained model. Prints the prompt and what follows.

    Parameters
    ----------
    path
        A run (its newest complete checkpoint), a checkpoint, or a Hugging Face folder.
    prompt
        The opening. Empty: a new document.
    max_new_tokens
        Tokens to write at most; the end of the document comes first where the model writes it.
    temperature
        0 is greedy: always the likeliest token.
    top_k
        Sample among the k likeliest tokens. 0: all.
    top_p
        Sample among the likeliest tokens that together have this probability.
    repetition_penalty
        Above 1 makes tokens that were used less likely.
    seed
        The same seed gives the same text.
    stop
        Strings that end the text.
    stream
        Print while writing.
    dtype
        Arithmetic.
    device
        cpu, cuda, cuda:1; auto takes cuda where there is one.
    """
    import fangcun

    model = fangcun.load(path, dtype=dtype, device=device)
    settings = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k or None,
        "top_p": top_p,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
        "stop": tuple(stop or ()),
    }
    if stream:
        pieces = model.stream(prompt, **settings)
        sys.stdout.write(prompt)
        sys.stdout.flush()
        for piece in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n")
    else:
        print(prompt + model.generate(prompt, **settings))
    return 0


def recipes(name: str | None = None, /) -> int:
    """List the shipped recipes, a line each; with a name, print that recipe.

    Parameters
    ----------
    name
        `fangcun recipes demo > my.yaml` saves a recipe to change it.
    """
    from fangcun.config import recipe_names, recipe_text

    names = recipe_names()
    if name is not None:
        if name not in names:
            raise ConfigError(f"'{name}' is no shipped recipe.{did_you_mean(name, names)} They are {', '.join(names)}.")
        print(recipe_text(name), end="")
        return 0
    width = max(len(each) for each in names)
    for each in names:
        title = recipe_text(each).splitlines()[0].lstrip("# ").partition(": ")[2]
        print(f"{each:<{width}}  {title}")
    print("\nRun one: fangcun run NAME --text PATH. Change one: fangcun recipes NAME > my.yaml; fangcun run my.yaml")
    return 0


def adopt(tokens: Sequence[str]) -> int:
    """`fangcun pack --adopt train.bin val.bin --tokenizer.path PATH --out DIR [--tokens.dtype uint16]`."""
    usage = "fangcun pack --adopt TRAIN.bin [VAL.bin] --tokenizer.path PATH --out DIR [--tokens.dtype uint16|uint32]"
    given: dict[str, list[str]] = {}
    values: list[str] | None = None
    for token in tokens:
        if token.startswith("--"):
            name, equals, value = token[2:].replace("-", "_").partition("=")
            if name not in ("adopt", "tokenizer.path", "out", "out_dir", "tokens.dtype"):
                raise ConfigError(f"{token}: not a setting of --adopt. Usage: {usage}")
            values = given.setdefault("out" if name == "out_dir" else name, [])
            values += [value] if equals else []
        elif values is None:
            raise ConfigError(f"'{token}': unexpected argument before --adopt. Usage: {usage}")
        else:
            values.append(token)
    counts = {"adopt": (1, 2), "tokenizer.path": (1, 1), "out": (1, 1), "tokens.dtype": (0, 1)}
    for name, (low, high) in counts.items():
        if not low <= len(given.get(name, [])) <= high:
            raise ConfigError(
                f"--{name}: expected {low if low == high else f'{low} or {high}'} value(s), got {len(given.get(name, []))}. Usage: {usage}"
            )
    dtype = (given.get("tokens.dtype") or ["auto"])[0]
    if dtype not in ("auto", "uint16", "uint32"):
        raise ConfigError(f"--tokens.dtype: expected one of 'auto', 'uint16', 'uint32', got '{dtype}'.")
    from fangcun.pipeline import adopt_tokens

    train, *val = [Path(file) for file in given["adopt"]]
    adopt_tokens(train, val[0] if val else None, given["tokenizer.path"][0], Path(given["out"][0]), dtype)
    return 0


def launch(tokens: Sequence[str]) -> int:
    """`fangcun launch slurm RECIPE [--nodes N --gpus-per-node M --time T …] [--section.key value …] [--dry-run]`."""
    usage = "fangcun launch slurm RECIPE [--nodes N --gpus-per-node M --time HH:MM:SS …] [--section.key value …] [--dry-run]"
    if not tokens or tokens[0] != "slurm":
        wrong = f"'{tokens[0]}': no scheduler that is known." if tokens else "Name the scheduler and the recipe."
        raise ConfigError(f"fangcun launch: {wrong} Usage: {usage}")
    if len(tokens) < 2 or tokens[1].startswith("-"):
        raise ConfigError(f"fangcun launch slurm needs a recipe first. Usage: {usage}")
    from fangcun.cli import take_yes
    from fangcun.config import check_inputs, load_recipe
    from fangcun.launch import launch_slurm, split_options
    from fangcun.pipeline import agree_before_job, check_folder
    from fangcun.rebuild import DeclinedError

    source = tokens[1]
    yes, words = take_yes(tokens[2:])
    options, flags = split_options(words)
    loaded = load_recipe(source, flags)
    check_folder(Path(loaded.recipe.out_dir or Path("runs") / loaded.name))
    check_inputs(loaded)
    if not options.dry_run:
        try:
            yes = agree_before_job(loaded, yes=yes)
        except DeclinedError as no:
            print(no)
            return no.exit_code
    launch_slurm(loaded, options, source=source, flags=[*flags, "--yes"] if yes else flags)
    return 0
