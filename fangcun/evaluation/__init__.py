"""Measuring a model: loss, perplexity and bits per byte over fixed windows, the same number every time.

Bits per byte divides by the UTF-8 bytes of the text, so it compares models across vocabularies; where a tokenizer does
not give the text back it says so (`comparable`).
"""

from fangcun.evaluation.bits_per_byte import Evaluation, evaluate_windows

__all__ = ["Evaluation", "evaluate_windows"]
