"""The rules of `clean.*` in their order, over one document; what they took is counted by rule."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field

from fangcun.config.cleaning import CleanConfig
from fangcun.corpus.clean.boilerplate import compile_sets, drop_contents, drop_lines, drop_tail
from fangcun.corpus.clean.lines import unwrap
from fangcun.corpus.clean.markup import strip_markup
from fangcun.corpus.clean.personal import mask
from fangcun.corpus.clean.tidy import normalize
from fangcun.corpus.clean.width import curl_quotes, join_hanzi, narrow_letters
from fangcun.corpus.mojibake import propose
from fangcun.errors import FangcunError

_MOST_ROUNDS = 8


@dataclass
class Cleaned:
    """A document after cleaning."""

    text: str
    taken: dict[str, list[str]] = field(default_factory=dict)
    """Rule to the lines it took out."""
    masked: int = 0
    """Personal data replaced."""
    mojibake: str | None = None
    """How the text had been misread, where that is exactly reversible."""


class Cleaner:
    """`clean(text)` for the settings of `config`. Cleaning a clean text changes nothing.

    Raises FangcunError where a setting needs a package that is not installed.
    """

    def __init__(self, config: CleanConfig) -> None:
        self.config = config
        self.pattern = compile_sets(config.boilerplate)
        steps: list[Callable[[str], str]] = [strip_markup] if config.markup else []
        if config.simplified:
            steps.append(_to_simplified())
        if config.width == "letters":
            steps.append(narrow_letters)
        if config.quotes == "curly":
            steps.append(curl_quotes)
        self.spelling = steps

    def clean(self, text: str) -> Cleaned:
        """One document."""
        # Before anything else: what tidying takes out may be part of a garbled letter.
        found = propose(text)
        if found is not None and self.config.mojibake:
            text = found[0]
        result = Cleaned(self._base(text), mojibake=found[1] if found is not None else None)
        # One rule may make work for another: a line that is taken out brings two others together. Nearly always the
        # second round finds nothing.
        for _ in range(_MOST_ROUNDS):
            before = result.text
            self._round(result)
            if result.text == before:
                break
            result.text = self._base(result.text)
            if result.text == before:
                break
        return result

    def _base(self, text: str) -> str:
        if self.config.tidy:
            return normalize(text)
        # Lone surrogates are no text: UTF-8 cannot spell them.
        return unicodedata.normalize("NFC", text.encode("utf-8", "ignore").decode())

    def _round(self, result: Cleaned) -> None:
        config = self.config
        if config.mojibake and (found := propose(result.text)):
            result.text, result.mojibake = found
        for step in self.spelling:
            result.text = step(result.text)
        if self.pattern is not None:
            self._take(result, "boilerplate", drop_lines(result.text, self.pattern))
            if "web" in config.boilerplate:
                self._take(result, "boilerplate", drop_tail(result.text))
            if "novel" in config.boilerplate:
                self._take(result, "contents", drop_contents(result.text))
        if config.join_hanzi:
            result.text = join_hanzi(result.text)
        if config.unwrap_lines:
            result.text = unwrap(result.text)
        if config.mask:
            result.text, masked = mask(result.text, config.mask)
            result.masked += masked

    @staticmethod
    def _take(result: Cleaned, rule: str, found: tuple[str, list[str]]) -> None:
        result.text, lines = found
        if lines:
            result.taken.setdefault(rule, []).extend(lines)


def _to_simplified() -> Callable[[str], str]:
    try:
        import opencc  # pyrefly: ignore [missing-import]
    except ImportError:
        raise FangcunError(
            "clean.simplified needs the package opencc, which is not installed. Run pip install opencc, or leave the setting out."
        ) from None
    return opencc.OpenCC("t2s").convert
