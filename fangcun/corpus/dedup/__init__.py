"""Text that is there more than once: the same document, nearly the same document, the same paragraph, an exam's question.

Texts are compared folded (Folding): white space, punctuation, width and case do not count. What is kept depends on the
documents alone, not on their order or on the number of workers.
"""

from fangcun.corpus.dedup.decontaminate import Overlap, References
from fangcun.corpus.dedup.duplicates import EXACT, NEAR, Copies, Duplicates
from fangcun.corpus.dedup.folding import Folding
from fangcun.corpus.dedup.paragraphs import ParagraphCounter, RepeatedParagraphs, paragraph_hashes
from fangcun.corpus.dedup.sketches import Sketches, sketch

__all__ = [
    "EXACT",
    "NEAR",
    "Copies",
    "Duplicates",
    "Folding",
    "Overlap",
    "ParagraphCounter",
    "References",
    "RepeatedParagraphs",
    "Sketches",
    "paragraph_hashes",
    "sketch",
]
