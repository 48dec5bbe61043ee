"""A corpus of several sources, and how much of each training reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fangcun.config.cleaning import CleanConfig, FilterConfig
from fangcun.config.constraints import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt


@dataclass
class SourceConfig:
    """One of several sources of a corpus. What is null is as the sections corpus, clean and filter say."""

    paths: list[str] | None = None
    """As corpus.paths."""

    preset: str | None = None
    """As corpus.preset, for clean and filter of this source."""

    text_key: str | None = None
    """As corpus.text_key."""

    txt_split: Literal["file", "blank_lines", "separator", "chapter"] | None = None
    """As corpus.txt_split."""

    separator: str | None = None
    """As corpus.separator."""

    chapter_pattern: str | None = None
    """As corpus.chapter_pattern."""

    encoding: Literal["auto", "utf-8", "utf-16", "gb18030", "big5"] | None = None
    """As corpus.encoding."""

    clean: CleanConfig | None = None
    """As the section clean, in its place for this source."""

    filter: FilterConfig | None = None
    """As the section filter, in its place for this source."""


@dataclass
class MixConfig:
    """How much of each source of corpus.sources training reads. Without it all of them are read as one text, as often as each other."""

    weights: dict[str, NonNegativeFloat] | None = None
    """Share of the training tokens for each source, in any unit: {web: 3, novels: 1}. 0 leaves one out."""

    tokens: dict[str, NonNegativeInt] | None = None
    """Tokens of each source that one epoch of the mixture reads."""

    epochs: dict[str, NonNegativeFloat] | None = None
    """Passes over each source in one epoch of the mixture."""

    max_epochs: PositiveFloat | None = None
    """No source is read more often than this in the whole run; what is over goes to the others, by their weights. Null: no limit."""

    changes: dict[PositiveInt, dict[str, NonNegativeFloat]] | None = None
    """Other weights from a step on: {8000: {web: 1, novels: 1}}. As a flag: 8000:web=1,novels=1."""
