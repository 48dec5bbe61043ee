"""What a corpus is read from: one nameless source, or several with names, each with its files and its rules."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from fangcun.config.check_sources import source_corpus
from fangcun.config.cleaning import Rules
from fangcun.config.schema import CorpusConfig
from fangcun.corpus.builtin import builtin_file
from fangcun.corpus.files import list_files, short_names
from fangcun.errors import ConfigError


class Source:
    """Files that are read in one way. They are listed once, when they are first asked for. Raises FangcunError then."""

    def __init__(self, config: CorpusConfig, rules: Rules | None = None, name: str = "") -> None:
        self.config, self.rules, self.name = config, rules or Rules(), name

    @cached_property
    def _listed(self) -> tuple[list[Path], list[Path]]:
        config = self.config
        if config.paths and config.builtin:
            raise ConfigError(
                "corpus.paths and corpus.builtin are both given; a corpus is one or the other. Remove one of them."
            )
        if config.builtin:
            return [builtin_file(config.builtin)], []
        if not config.paths:
            raise ConfigError(
                "There is no text to read: corpus.paths is empty. Name files or folders with --text PATH, or take the novel that comes along: --corpus.builtin sanguo"
            )
        return list_files(config.paths)

    @property
    def files(self) -> list[Path]:
        """In reading order."""
        return self._listed[0]

    @property
    def skipped(self) -> list[Path]:
        """Files that lie there and are not read."""
        return self._listed[1]

    @cached_property
    def names(self) -> dict[Path, str]:
        """What files are called in the corpus: the path below their common folder, after the name of the source."""
        short = short_names(self.files + self.skipped)
        return {path: f"{self.name}/{name}" if self.name else name for path, name in short.items()}

    @cached_property
    def sizes(self) -> dict[Path, int]:
        """Bytes of each file."""
        return {path: path.stat().st_size for path in self.files}

    @cached_property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(self.sizes.values())


def corpus_sources(config: CorpusConfig, rules: Rules | None = None) -> list[Source]:
    """The sources of a corpus, in reading order. Raises ConfigError."""
    rules = rules or Rules()
    if config.sources is None:
        return [Source(config, rules)]
    if config.paths or config.builtin:
        raise ConfigError("corpus.sources is given beside corpus.paths or corpus.builtin; a corpus is one of them.")
    if not config.sources:
        raise ConfigError("corpus.sources is empty. Name at least one source, with its paths.")
    return [
        Source(
            source_corpus(config, source),
            Rules(source.clean or rules.clean, source.filter or rules.filter, rules.dedup),
            name,
        )
        for name, source in config.sources.items()
    ]
