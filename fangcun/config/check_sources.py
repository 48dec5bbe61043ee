"""Contradictions in corpus.sources and mix: names that do not meet, sources without text, mixtures that say two things."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

from fangcun.config.corpus import MixConfig, SourceConfig
from fangcun.config.findings import Findings
from fangcun.config.schema import CorpusConfig, Recipe
from fangcun.errors import did_you_mean

_NAME = re.compile(r"[\w][\w.-]{0,40}")
_READING = ("paths", "text_key", "txt_split", "separator", "chapter_pattern", "encoding")


def source_corpus(corpus: CorpusConfig, source: SourceConfig) -> CorpusConfig:
    """How one source is read: what it says itself, and what the section corpus says otherwise."""
    own = {name: value for name in _READING if (value := getattr(source, name)) is not None}
    return dataclasses.replace(corpus, sources=None, **own)


def find_source_mistakes(found: Findings, recipe: Recipe) -> None:
    """Tell `found` what is wrong with corpus.sources and mix."""
    sources = recipe.corpus.sources
    if sources is not None:
        for name, source in sources.items():
            _source(found, recipe.corpus, name, source)
        _unread(found, recipe)
    _mix(found, recipe.mix, None if sources is None else list(sources), recipe.tokens.path is not None)


def _unread(found: Findings, recipe: Recipe) -> None:
    """Settings of clean and filter that every source says otherwise."""
    sources = (recipe.corpus.sources or {}).values()
    for section in ("clean", "filter"):
        own = [getattr(source, section) for source in sources]
        if any(each is None for each in own):
            continue
        for leaf, value in vars(getattr(recipe, section)).items():
            if all(getattr(each, leaf) != value for each in own):
                found.idle([f"{section}.{leaf}"], "corpus.sources", "all of corpus.sources say otherwise.")


def _source(found: Findings, corpus: CorpusConfig, name: str, source: SourceConfig) -> None:
    def wrong(message: str) -> None:
        found.error(["corpus.sources"], f"{name}: {message}")

    if not _NAME.fullmatch(name):
        wrong("a source's name is up to 41 letters, digits, '_', '-' and '.'.")
    if not source.paths:
        wrong("it has no paths; name at least one file, folder or glob.")
    whole = source_corpus(corpus, source)
    if whole.txt_split == "separator" and not whole.separator:
        wrong("txt_split 'separator' needs the string between two documents as separator.")
    for own, how in (("separator", "separator"), ("chapter_pattern", "chapter")):
        if getattr(source, own) is not None and whole.txt_split != how:
            wrong(f"{own} has no effect with txt_split '{whole.txt_split}'. Remove it.")
    if whole.chapter_pattern is not None:
        try:
            re.compile(whole.chapter_pattern)
        except re.error as error:
            wrong(f"chapter_pattern is not a regular expression: {error}.")


def _mix(found: Findings, mix: MixConfig, sources: list[str] | None, packed: bool) -> None:
    given = [f"mix.{name}" for name in ("weights", "tokens", "epochs") if getattr(mix, name) is not None]
    all_given = [f"mix.{name}" for name, value in vars(mix).items() if value is not None]
    if not all_given:
        return
    if sources is None and not packed:
        text = next((key for key in ("corpus.paths", "corpus.builtin") if found.by_flag(key)), None)
        if text is not None:
            found.idle(all_given, text, "there are no sources to mix.")
            return
        found.error(all_given, "there are no sources to mix. Name them in corpus.sources, or remove it.")
        return
    if len(given) != 1:
        which = " and ".join(given) if given else "none of them"
        found.error(
            given or all_given, f"a mixture has one of mix.weights, mix.tokens and mix.epochs; here is {which}."
        )
        return
    for key in given:
        _names(found, key, getattr(mix, key.partition(".")[2]), sources)
    for step, weights in (mix.changes or {}).items():
        _names(found, "mix.changes", weights, sources, f"step {step}: ")


def _names(found: Findings, key: str, shares: dict[str, float], sources: list[str] | None, where: str = "") -> None:
    if not any(shares.values()):
        found.error([key], f"{where}nothing is left to read: all are 0.")
    for message in name_mistakes(shares, sources) if sources is not None else ():
        found.error([key], where + message)


def name_mistakes(shares: Iterable[str], sources: list[str]) -> list[str]:
    """A sentence for each name in `shares` that is no source, and one for sources that it does not name."""
    shares = list(shares)
    wrong = [
        f"there is no source '{name}'.{did_you_mean(name, sources)} The sources are {', '.join(sources)}."
        for name in shares
        if name not in sources
    ]
    lacking = [name for name in sources if name not in shares]
    if lacking and not wrong:
        wrong.append(f"it does not say anything of {', '.join(lacking)}. Write 0 to leave a source out.")
    return wrong
