"""What becomes of the documents between reading and writing: cleaning, filters, duplicates. `corpus.preset` fills the sections."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from fangcun.config.constraints import Bounds, NonNegativeFloat, NonNegativeInt, PositiveInt, Share

Similarity = Annotated[float, Bounds(low=0.3, high=1)]
"""Below, the bands would miss most pairs."""
Several = Annotated[int, Bounds(low=2)]
Overlapping = Annotated[int, Bounds(low=13)]


@dataclass
class CleanConfig:
    """Changes to the text of a document. It is always composed (NFC, never NFKC)."""

    tidy: bool = True
    """Line ends become one kind; control characters, zero-width spaces, ideographic indents and trailing white space go; at most two blank lines in a row."""

    mojibake: bool = False
    """Repair text that was read in a wrong encoding (UTF-8 as cp1252 or latin-1, GBK as latin-1, UTF-8 as GBK), where that is exactly reversible. What could be repaired is counted either way."""

    markup: bool = False
    """HTML's entities become the characters that they name, and its tags go."""

    width: Literal["keep", "letters"] = "keep"
    """letters: full-width letters and digits become ASCII. Punctuation keeps its width."""

    simplified: bool = False
    """Traditional characters become simplified ones, by OpenCC (extra data)."""

    quotes: Literal["keep", "curly"] = "keep"
    """curly: 「」 and 『』 become “” and ‘’; straight double quotes in paragraphs with hanzi too, where they come in pairs."""

    join_hanzi: bool = False
    """Spaces between hanzi, or hanzi and Chinese punctuation, go."""

    unwrap_lines: bool = False
    """Lines of a document that were cut at a fixed width are put together again."""

    boilerplate: list[Literal["novel", "web"]] = field(default_factory=list)
    """Lines that are no part of the text go. novel: advertisements and marks of novel sites, chapter lists, page numbers. web: navigation, sharing, copyright."""

    mask: list[Literal["phone", "id", "email"]] = field(default_factory=list)
    """Personal data replaced by [PHONE], [ID], [EMAIL]: mobile numbers, numbers of Chinese identity cards, e-mail addresses."""


@dataclass
class FilterConfig:
    """Which documents are left out. Each rule counts what it drops; `fangcun corpus show RUN --dropped RULE` shows samples."""

    min_characters: NonNegativeInt = 0
    """Documents with fewer characters, white space aside."""

    max_characters: PositiveInt | None = None
    """Documents with more characters. Null: no limit."""

    language: Literal["any", "zh", "en", "zh+en"] = "any"
    """What the letters must mostly be, by script: zh: hanzi at least 30 % and no kana or hangul to speak of; en: Latin at least 90 %; zh+en: one of the two."""

    max_duplicate_lines: Share = 1.0
    """Share of the characters that stand in lines which occurred before in the document."""

    max_duplicate_ngrams: Share = 1.0
    """Share of the characters that stand in runs of 16 characters which occurred before in the document."""

    max_top_ngram: Share = 1.0
    """Share of the characters that the commonest run of 4 characters takes."""

    max_symbols: Share = 1.0
    """Share of characters other than letters, hanzi, digits, common punctuation and white space."""

    max_digits: Share = 1.0
    """Share of digits."""

    max_line_ends: Share = 1.0
    """Line ends over characters: lists and menus have many."""

    min_punctuation: Share = 0.0
    """Share of punctuation: keyword lists have little."""

    min_line_punctuation: Share = 0.0
    """Share of the lines that end with punctuation, of documents with at least five lines."""

    min_stop_characters: NonNegativeInt = 0
    """How many of the commonest Chinese characters (的 是 在 了 …) must occur; for documents that are mostly hanzi."""

    max_spam: NonNegativeFloat | None = None
    """Advertising and download phrases per 1,000 characters, where two kinds of them occur or one five times. Null: not counted."""


@dataclass
class DedupConfig:
    """Documents that say again what another one says. Of those alike the longest is kept."""

    exact: bool = False
    """Drop copies that differ in punctuation, white space, width, case or traditional and simplified characters alone."""

    near: bool = False
    """Drop near-duplicates and exact copies: MinHash over runs of five characters."""

    similarity: Similarity = 0.75
    """Estimated Jaccard similarity from which on two documents are near-duplicates: 1 of 20 characters changed leaves about 0.6 of the runs, 1 of 50 about 0.8."""

    paragraph_documents: Several | None = None
    """Lines that stand in this many documents or more are taken out of all but one of them, which the filters may drop after all. Null: lines are not compared."""

    paragraph_characters: PositiveInt = 20
    """Shorter lines are not compared; punctuation and white space do not count."""

    references: list[str] | None = None
    """Files and folders of exam questions, or of any text that must not be learnt: documents that share a run of overlap_characters with one of them are left out, and those that contain the whole of a shorter one (from 13 characters on)."""

    held_out: bool = False
    """Training documents that share a run of overlap_characters with a document held out for validation are left out too."""

    overlap_characters: Overlapping = 32
    """The run that counts for references and held_out, punctuation and white space aside."""


@dataclass
class Rules:
    """The three sections together; as they stand here nothing is left out and little is changed."""

    clean: CleanConfig = field(default_factory=CleanConfig)
    filter: FilterConfig = field(default_factory=FilterConfig)
    dedup: DedupConfig = field(default_factory=DedupConfig)

    @property
    def finds_copies(self) -> bool:
        """Whether documents are compared with each other."""
        return self.dedup.exact or self.dedup.near
