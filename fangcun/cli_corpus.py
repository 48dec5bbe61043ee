"""`fangcun corpus show` and `fangcun corpus report`: what a corpus left out, by rule, with samples; what it is made of."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fangcun.errors import ConfigError, FangcunError, did_you_mean

_USAGE = "fangcun corpus show RUN [--dropped RULE] [--count N]"
_REPORT_USAGE = "fangcun corpus report RUN [--json FILE] [--html FILE]"


def show(tokens: Sequence[str]) -> int:
    """Print the rules and what each left out; with `--dropped RULE`, samples of it."""
    run, options = _read(tokens, {"dropped": "", "count": "10"}, _USAGE)
    if not options["count"].isdecimal() or not int(options["count"]):
        raise ConfigError(f"--count: expected a whole number above 0, got '{options['count']}'.")
    folder = find_corpus(run)
    try:
        rules = json.loads((folder / "drops.json").read_text(encoding="utf-8")).get("rules", {})
    except (ValueError, AttributeError) as error:
        raise FangcunError(
            f"{folder / 'drops.json'} is damaged ({error}). Remove {folder} to have the corpus made anew."
        ) from error
    if not options["dropped"]:
        _print_rules(rules)
        return 0
    if options["dropped"] not in rules:
        names = ", ".join(rules) or "none: nothing was left out"
        raise ConfigError(
            f"--dropped: no rule '{options['dropped']}' left anything out here.{did_you_mean(options['dropped'], list(rules))} Rules that did: {names}."
        )
    _print_samples(folder, options["dropped"], int(options["count"]))
    return 0


def report(tokens: Sequence[str]) -> int:
    """Print what a corpus is made of; `--json FILE` and `--html FILE` write it too."""
    run, options = _read(tokens, {"json": "", "html": ""}, _REPORT_USAGE)
    folder = find_corpus(run)
    from fangcun.corpus.report_page import as_html, as_text
    from fangcun.corpus.statistics import corpus_statistics

    found = corpus_statistics(folder)
    print(as_text(found))
    if options["json"]:
        Path(options["json"]).write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    if options["html"]:
        Path(options["html"]).write_text(as_html(found, f"Corpus {run}"), encoding="utf-8")
    return 0


def _read(tokens: Sequence[str], options: dict[str, str], usage: str) -> tuple[Path, dict[str, str]]:
    """The folder and the options among `tokens`. Raises ConfigError."""
    run, rest = None, list(tokens)
    while rest:
        token = rest.pop(0)
        if not token.startswith("--"):
            if run is not None:
                raise ConfigError(f"'{token}': unexpected argument. Usage: {usage}")
            run = token
            continue
        name, equals, value = token[2:].partition("=")
        if name not in options:
            raise ConfigError(f"{token}: no setting here.{did_you_mean(name, list(options))} Usage: {usage}")
        if not equals and not rest:
            raise ConfigError(f"--{name}: needs a value. Usage: {usage}")
        options[name] = value if equals else rest.pop(0)
    if run is None:
        raise ConfigError(f"Name a run or a corpus folder. Usage: {usage}")
    return Path(run), options


def find_corpus(path: Path) -> Path:
    """The corpus folder that `path` is or has. Raises FangcunError."""
    for folder in (path / "corpus", path):
        if (folder / "drops.json").is_file():
            return folder
    raise FangcunError(f"{path} is no corpus and no run that has one. Name the folder that --out was given.")


def _print_rules(rules: dict[str, dict[str, int]]) -> None:
    if not rules:
        print("Nothing was left out by a rule.")
        return
    width = max(len(name) for name in rules)
    print(f"{'rule':<{width}}  {'documents':>11}  {'lines':>11}  {'bytes':>15}")
    for name, count in rules.items():
        print(f"{name:<{width}}  {count['documents']:>11,}  {count['lines']:>11,}  {count['bytes']:>15,}")
    print("\nSamples: fangcun corpus show RUN --dropped RULE")


def _print_samples(folder: Path, rule: str, count: int) -> None:
    from fangcun.corpus import read_samples

    samples: list[dict[str, Any]] = [sample for sample in read_samples(folder) if sample["rule"] == rule]
    for sample in samples[:count]:
        print(f"{sample['source']}  {sample['characters']:,} characters  {sample['reason']}")
        print(textwrap.indent(_shorten(sample["text"]), "    ") + "\n")
    if len(samples) > count:
        print(f"{len(samples) - count} more samples: --count {len(samples)}")


def _shorten(text: str, most: int = 300) -> str:
    return text if len(text) <= most else text[:most] + " …"
