"""Verbs beside those of a recipe: write with a model, take over token files, list recipes, submit jobs. Each imports what it
needs itself."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from fangcun.cli_sampling import Sampling, SamplingFlags
from fangcun.errors import ConfigError, did_you_mean


def generate(
    path: str,
    /,
    *,
    prompt: str = "",
    max_new_tokens: int = 256,
    sampling: Sampling = None,
    seed: int | None = None,
    n: int = 1,
    stop: Annotated[list[str] | None, Parameter(negative=(), consume_multiple=True)] = None,
    stream: Annotated[bool, Parameter(negative=())] = False,
    logprobs: Annotated[bool, Parameter(negative=())] = False,
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8", "int4"] = "auto",
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
    seed
        The same seed gives the same text.
    n
        Samples, written together; a line --- N --- stands before each.
    stop
        Strings that end the text.
    stream
        Print while writing.
    logprobs
        Instead of the text, a line for each token: its log-probability and those of the likeliest in its place.
    dtype
        Arithmetic. auto: bfloat16 where that is fast, else float32. int8, int4: weights of so many bits.
    device
        cpu, cuda, cuda:1; auto takes cuda where there is one.
    """
    import fangcun
    from fangcun.generation import Engine, Piece, Request, TokenScore
    from fangcun.generation.stopping import check_stop

    if stream and (n > 1 or logprobs):
        raise ConfigError(f"--stream: not together with {'--logprobs' if logprobs else '--n'}. Leave one of them out.")
    settings = (sampling or SamplingFlags()).settings()
    model = fangcun.load(path, dtype=dtype, device=device)
    request = Request(
        model.encode_prompt(prompt), settings, max_new_tokens, seed, check_stop(stop or ()),
        n=n, logprobs=5 if logprobs else None,
    )  # fmt: skip
    texts, scores = [""] * max(n, 1), [list[TokenScore]() for _ in range(max(n, 1))]
    if stream:
        sys.stdout.write(prompt)
        sys.stdout.flush()
    with contextlib.closing(Engine(model, max_batch=max(1, min(n, 16))).stream(request)) as events:
        for event in events:
            if isinstance(event, Piece):
                texts[event.sample] += event.text
                scores[event.sample] += event.tokens
                if stream:
                    sys.stdout.write(event.text)
                    sys.stdout.flush()
    if stream:
        print()
        return 0
    for number in range(n):
        if n > 1:
            print(f"--- {number + 1} ---")
        if logprobs:
            for token in scores[number]:
                others = "  ".join(f"{other.text!r} {other.logprob:.2f}" for other in token.alternatives)
                print(f"{token.logprob:7.2f}  {token.text!r}   {others}")
        else:
            print(prompt + texts[number])
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
