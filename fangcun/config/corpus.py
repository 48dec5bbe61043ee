"""What text is read and what is held out; several sources, and how much of each training reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fangcun.config.cleaning import CleanConfig, FilterConfig
from fangcun.config.constraints import NonNegativeFloat, NonNegativeInt, OpenShare, PositiveFloat, PositiveInt, Share


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
    """What is otherwise than the section clean says. This comes before the section, the section before the preset."""

    filter: FilterConfig | None = None
    """What is otherwise than the section filter says, in the same way."""


@dataclass
class CorpusConfig:
    """Which text is read, how it is cut into documents, and what is held out."""

    paths: list[str] | None = None
    """Files, folders and globs of .txt .md .jsonl .json .csv .tsv .parquet .arrow and wiki_00, plain, .gz, .zst, .xz or .bz2 (.parquet and .arrow plain). `--text` is short for it."""

    builtin: Literal["sanguo"] | None = None
    """A text that comes with the installation: sanguo is the novel 三国演义. paths and builtin exclude each other."""

    preset: str | None = None
    """Fills the sections clean, filter and dedup where the recipe says nothing: none, novel, web, news, dialogue, or a YAML file with these sections. Null: their defaults. Loading a recipe puts the settings in its place."""

    sources: dict[str, SourceConfig] | None = None
    """Several named sources in place of paths, each with paths and, where it differs, preset, text_key, txt_split, separator, chapter_pattern, encoding, clean, filter. Each has its own share of the validation split; the section mix weighs them."""

    text_key: str | None = None
    """Field (or column) that holds the text. Null: the known schemas are tried."""

    txt_split: Literal["file", "blank_lines", "separator", "chapter"] = "file"
    """What one document is in a .txt or .md file."""

    separator: str | None = None
    """The string between documents, for txt_split: separator."""

    chapter_pattern: str | None = None
    """Regular expression that matches the first line of a document, for txt_split: chapter. Null: 第…回/章/卷/节."""

    encoding: Literal["auto", "utf-8", "utf-16", "gb18030", "big5"] = "auto"
    """Encoding of text files. auto tells UTF-8 and UTF-16 (with or without BOM), GB18030 and Big5 apart; what it decides on too little text is named as uncertain."""

    val_split: Literal["auto", "hash", "tail"] = "auto"
    """hash: each document by its content, stable when documents are added. tail: the last share of the stream. auto: hash, tail under 200 documents."""

    val_share: OpenShare | None = None
    """Share held out for validation. Null: 0.1, and 0.005 above 1 GB of text."""

    max_broken_share: Share = 0.01
    """Above this share of broken documents or bytes reading stops with an error."""

    workers: PositiveInt | None = None
    """Processes that clean and filter. Null: one a core, and one for a small corpus. The result does not depend on it."""


@dataclass
class MixConfig:
    """How much of each source of corpus.sources training reads. Without it all of them are read as one text, as often as each other."""

    weights: dict[str, NonNegativeFloat] | None = None
    """Share of the training tokens for each source, in any unit: {web: 3, novels: 1}. 0 leaves one out. train.epochs then counts all tokens of those that are read."""

    tokens: dict[str, NonNegativeInt] | None = None
    """Tokens of each source that one epoch of the mixture reads."""

    epochs: dict[str, NonNegativeFloat] | None = None
    """Passes over each source in one epoch of the mixture."""

    max_epochs: PositiveFloat | None = None
    """No source is read more often than this in the whole run, but for the end of the last step; what is over goes to the others, by their weights. Null: no limit."""

    changes: dict[PositiveInt, dict[str, NonNegativeFloat]] | None = None
    """Other weights from a step on: {8000: {web: 1, novels: 1}}. As a flag: 8000:web=1,novels=1."""
