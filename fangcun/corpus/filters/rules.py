"""The rules. Each takes the page and its limit from `filter.*` and says why the page goes, or None.

Adding one: a function here whose name is its setting's, a field in `fangcun.config.cleaning.FilterConfig`, a test.
Sources: repetition as in Gopher (Rae et al. 2021), stop words and line punctuation as in FineWeb-2 (Penedo et al. 2025).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from fangcun.config.cleaning import FilterConfig
from fangcun.corpus.clean.characters import SENTENCE_ENDS
from fangcun.corpus.filters.page import Page, WordList
from fangcun.corpus.filters.spam import SPAM

Rule = Callable[[Page, Any], str | None]

STOP_CHARACTERS = "的年在月是和日了於为為有被人中他與与後后也而由不这這我一"
"""FineWeb-2's stop words for Mandarin that are characters, in both scripts, and the commonest that it leaves out."""

LOG2_DUPLICATE, LOG2_TOP = 4, 2
"""Runs of 16 and 4 characters: ten and two to three words of 1.6."""

_ZH_LEAST, _FOREIGN_MOST, _EN_LEAST = 0.3, 0.05, 0.9
_ENDS = tuple(SENTENCE_ENDS)
_SPAM = WordList(SPAM)
_FEW_LINES = 5
_OFTEN = 5
_FEW_CHARACTERS = 200
"""In shorter texts a name that occurs a few times is a large share."""


def min_characters(page: Page, limit: int) -> str | None:
    return f"{page.characters} characters" if page.characters < limit else None


def max_characters(page: Page, limit: int) -> str | None:
    return f"{page.characters:,} characters" if page.characters > limit else None


def language(page: Page, wanted: str) -> str | None:
    han, latin, foreign = (page.of_letters(kind) for kind in ("han", "latin", "kana_hangul"))
    chinese = han >= _ZH_LEAST and foreign <= _FOREIGN_MOST
    english = latin >= _EN_LEAST
    if {"zh": chinese, "en": english, "zh+en": chinese or english}[wanted]:
        return None
    return f"letters: {han:.0%} hanzi, {latin:.0%} Latin, {foreign:.0%} kana and hangul"


def max_duplicate_lines(page: Page, limit: float) -> str | None:
    return _above(page.duplicate_lines, limit, "of the characters in repeated lines")


def max_duplicate_ngrams(page: Page, limit: float) -> str | None:
    if page.characters < _FEW_CHARACTERS:
        return None
    return _above(page.duplicate_ngrams(LOG2_DUPLICATE), limit, "in repeated runs of 16 characters")


def max_top_ngram(page: Page, limit: float) -> str | None:
    if page.characters < _FEW_CHARACTERS:
        return None
    return _above(page.top_ngram(LOG2_TOP), limit, "taken by one run of 4 characters")


def max_symbols(page: Page, limit: float) -> str | None:
    return _above(page.symbols, limit, "symbols")


def max_digits(page: Page, limit: float) -> str | None:
    return _above(page.digits, limit, "digits")


def max_line_ends(page: Page, limit: float) -> str | None:
    return _above((len(page.lines) - 1) / max(1, page.characters), limit, "line ends a character")


def min_line_punctuation(page: Page, limit: float) -> str | None:
    if len(page.lines) < _FEW_LINES:  # one line more or less would decide
        return None
    share = sum(line.endswith(_ENDS) for line in page.lines) / max(1, len(page.lines))
    return f"{share:.0%} of the lines end with punctuation" if share < limit else None


def min_punctuation(page: Page, limit: float) -> str | None:
    return f"{page.punctuation:.1%} punctuation" if page.punctuation < limit else None


def min_stop_characters(page: Page, limit: int) -> str | None:
    if page.of_letters("han") < _ZH_LEAST:
        return None
    found = sum(character in page.text for character in STOP_CHARACTERS)
    return f"{found} of the commonest characters" if found < limit else None


def max_spam(page: Page, limit: float) -> str | None:
    found = _SPAM.count(page.text)
    if len(found) < 2 and sum(found.values()) < _OFTEN:  # an article may name one of them
        return None
    rate = 1000 * sum(found.values()) / max(1, page.characters)
    if rate <= limit:
        return None
    return f"{rate:.1f} in 1,000 characters: " + ", ".join(f"{word} {count}" for word, count in found.most_common(5))


def _above(share: float, limit: float, what: str) -> str | None:
    return f"{share:.1%} {what}" if share > limit else None


RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        min_characters, max_characters, language, min_stop_characters, max_spam, max_symbols, max_digits, max_line_ends,
        min_punctuation, min_line_punctuation, max_duplicate_lines, max_top_ngram, max_duplicate_ngrams,
    )
}  # fmt: skip
"""By setting, in the order they are asked: the cheap ones first. The first that answers is the reason."""


class Filter:
    """The rules whose limits differ from "no limit"."""

    def __init__(self, config: FilterConfig) -> None:
        neutral = {field.name: field.default for field in fields(FilterConfig)}
        self.rules = [
            (name, rule, getattr(config, name))
            for name, rule in RULES.items()
            if getattr(config, name) != neutral[name]
        ]

    def reason(self, text: str) -> tuple[str, str] | None:
        """(rule, why) of the first rule that drops `text`, or None."""
        page = Page(text)
        for name, rule, limit in self.rules:
            if why := rule(page, limit):
                return name, why
        return None
