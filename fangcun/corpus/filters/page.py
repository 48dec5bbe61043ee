"""What the filters look at: counts of a document's characters and lines, each computed once and only when asked for."""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import cache, cached_property

import numpy as np

_SPACE, _HAN, _LATIN, _OTHER_LETTER, _KANA_HANGUL, _DIGIT, _PUNCTUATION, _SYMBOL = range(8)
KIND_NAMES = (
    "white space", "hanzi", "Latin", "other letters", "kana and hangul", "digits", "punctuation", "symbols",
)  # fmt: skip
"""What `Page.counts` counts, in its order."""
_LIMIT = 0x110000
_LONGEST_WORD = 16
_BASE, _MIX = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93
_PUNCTUATION_MARKS = "，。！？；：、“”‘’（）《》〈〉「」『』【】〔〕…—·～,.!?;:'\"()[]-_/&%@+*#"


@cache
def _table() -> np.ndarray:
    """Class of every code point. Letters of scripts that are not named here count as other letters, the rest as symbols."""
    table = np.full(_LIMIT, _SYMBOL, np.uint8)
    for first, last in ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF)):
        table[first : last + 1] = _HAN
    for code in range(0x3100):
        kind = unicodedata.category(chr(code))
        if kind[0] in "LM":
            name = unicodedata.name(chr(code), "")
            latin = name.startswith("LATIN") or kind[0] == "M"
            kana = name.startswith(("HIRAGANA", "KATAKANA", "HANGUL"))
            table[code] = _LATIN if latin else _KANA_HANGUL if kana else _OTHER_LETTER
        elif kind == "Nd":
            table[code] = _DIGIT
        elif kind[0] == "Z":
            table[code] = _SPACE
    table[0xA000:0xAC00] = _OTHER_LETTER
    table[0xAC00:0xD7A4] = _KANA_HANGUL
    table[0xFF21:0xFF3B] = table[0xFF41:0xFF5B] = _LATIN
    table[0xFF10:0xFF1A] = _DIGIT
    table[0xFF66:0xFFDD] = _KANA_HANGUL
    table[[ord(c) for c in "\t\n\r\x0b\x0c\u3000"]] = _SPACE
    table[[ord(c) for c in _PUNCTUATION_MARKS]] = _PUNCTUATION
    table[0xFF01:0xFF10] = table[0xFF1A:0xFF21] = _PUNCTUATION
    table[ord("〇")] = _HAN
    return table


class WordList:
    """Many short words, looked for together: only where the first and the second character fit is the text read.

    A word of the list that begins another one is counted with it; they may overlap.
    """

    def __init__(self, words: list[str]) -> None:
        self._words: dict[str, list[str]] = {}
        self._fits = np.zeros(_LIMIT, np.uint8)
        for word in sorted(words):
            self._words.setdefault(word[:2], []).append(word)
            for bit, character in ((1, word[0]), (2, word[1])):
                self._fits[[ord(character), ord(character.upper()[0])]] |= bit

    def count(self, text: str) -> Counter[str]:
        """How often each word occurs, case aside; without those that do not."""
        found: Counter[str] = Counter()
        fits = self._fits[np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)]
        for start in np.flatnonzero((fits[:-1] & 1) & (fits[1:] >> 1)).tolist():
            here = text[start : start + _LONGEST_WORD].lower()
            for word in self._words.get(here[:2], ()):
                if here.startswith(word):
                    found[word] += 1
        return found


class Page:
    """One document. Shares are over its characters without white space, unless said otherwise; 0 for an empty one."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def codes(self) -> np.ndarray:
        """Code points without white space, uint32."""
        codes = np.frombuffer(self.text.encode("utf-32-le", "surrogatepass"), np.uint32)
        return codes[_table()[codes] != _SPACE]

    @cached_property
    def counts(self) -> np.ndarray:
        """Characters of each class."""
        return np.bincount(_table()[self.codes], minlength=8)

    @cached_property
    def characters(self) -> int:
        """Characters, white space aside."""
        return len(self.codes)

    def share(self, *classes: int) -> float:
        return float(sum(self.counts[c] for c in classes)) / max(1, self.characters)

    @property
    def symbols(self) -> float:
        return self.share(_SYMBOL)

    @property
    def punctuation(self) -> float:
        return self.share(_PUNCTUATION)

    @property
    def digits(self) -> float:
        return self.share(_DIGIT)

    @cached_property
    def letters(self) -> int:
        """Letters and hanzi."""
        return int(self.counts[[_HAN, _LATIN, _OTHER_LETTER, _KANA_HANGUL]].sum())

    def of_letters(self, kind: str) -> float:
        """Share of the letters that are `han`, `latin` or `kana_hangul`."""
        return float(self.counts[{"han": _HAN, "latin": _LATIN, "kana_hangul": _KANA_HANGUL}[kind]]) / max(
            1, self.letters
        )

    @cached_property
    def lines(self) -> list[str]:
        """Lines that are not blank, white space at their sides aside."""
        return [bare for line in self.text.split("\n") if (bare := line.strip())]

    @cached_property
    def duplicate_lines(self) -> float:
        """Share of the characters that stand in lines which occurred before."""
        seen: set[str] = set()
        repeated = total = 0
        for line in self.lines:
            total += len(line)
            repeated += len(line) if line in seen else 0
            seen.add(line)
        return repeated / max(1, total)

    def duplicate_ngrams(self, log2_n: int) -> float:
        """Share of the characters that are covered by runs of 2 ** log2_n characters which occurred before."""
        hashes, n = self.runs(log2_n), 1 << log2_n
        ordered = np.sort(hashes)
        if not (ordered[1:] == ordered[:-1]).any():
            return 0.0
        order = np.argsort(hashes, kind="stable")
        again = np.zeros(len(hashes), bool)
        again[order[1:]] = hashes[order[1:]] == hashes[order[:-1]]
        edges = np.zeros(self.characters + 1, np.int32)
        starts = np.flatnonzero(again)
        edges[starts] += 1
        edges[starts + n] -= 1
        return float(np.count_nonzero(np.cumsum(edges[:-1]))) / self.characters

    def top_ngram(self, log2_n: int) -> float:
        """Share of the characters that the commonest run of 2 ** log2_n characters takes."""
        ordered = np.sort(self.runs(log2_n))
        ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
        most = int(np.diff(ends, prepend=-1).max(initial=0))
        return most * (1 << log2_n) / self.characters if most > 1 else 0.0

    def runs(self, log2_n: int) -> np.ndarray:
        """A 64-bit polynomial hash of every run of 2 ** log2_n characters, each from two of half the length."""
        while len(self._hashed) <= log2_n:
            half, last = 1 << (len(self._hashed) - 1), self._hashed[-1]
            base = np.uint64(pow(_BASE, half, 1 << 64))
            self._hashed.append(last[: max(0, len(last) - half)] * base + last[half:])
        return self._hashed[log2_n]

    @cached_property
    def _hashed(self) -> list[np.ndarray]:
        return [self.codes.astype(np.uint64) * np.uint64(_MIX)]
