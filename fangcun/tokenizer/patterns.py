"""How text is cut before BPE: the patterns of the vocabularies we know, and the finer cut for training.

A tokenizer file carries one of the known patterns unchanged, because llama.cpp knows pre-tokenizers by name only. What
keeps tokens clean (scripts apart, short runs of hanzi) is done in training alone: each piece that training sees lies
inside a piece of the known pattern, so every learned token can be reached.
"""

from __future__ import annotations

from tokenizers import Regex, decoders, pre_tokenizers
from tokenizers.pre_tokenizers import PreTokenizer

QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen, Qwen2 and Qwen3; `tokenizer.ggml.pre = "qwen2"` in llama.cpp."""

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

CL100K = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""cl100k_base and Llama 3."""

# Scripts written with spaces between words: a word may take the one character before it along, as in Qwen2's pattern.
_SPACED = (
    "Latin", "Cyrillic", "Greek", "Arabic", "Hebrew", "Hangul", "Devanagari", "Bengali", "Tamil", "Telugu", "Armenian",
    "Georgian", "Ethiopic", "Mongolian", "Tibetan",
)  # fmt: skip
_UNSPACED = ("Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar")


def byte_level(pattern: str) -> PreTokenizer:
    """Cut by `pattern`, then spell each piece in bytes."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def byte_level_decoder() -> decoders.Decoder:
    """The way back from `byte_level`."""
    return decoders.ByteLevel()


def training_pattern(max_han_run: int) -> str:
    """The cut inside the pieces of Qwen2's pattern: runs of at most `max_han_run` hanzi, one script a piece.

    `&&\\p{L}` leaves out numerals and signs that Unicode counts to a script (〇, Ⅳ): Qwen2's pattern cuts before them.
    """
    unspaced = "|".join(rf"[\p{{{script}}}&&\p{{L}}]+" for script in _UNSPACED)
    spaced = "|".join(rf"[\p{{{script}}}&&\p{{L}}]+" for script in _SPACED)
    named = "".join(rf"\p{{{script}}}" for script in (*_SPACED, *_UNSPACED, "Han"))
    return (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
        rf"|[\p{{Han}}&&\p{{L}}]{{1,{max_han_run}}}|{unspaced}"
        rf"|[^\r\n\p{{L}}\p{{N}}]?(?:{spaced}|[\p{{L}}&&[^{named}]]+)"
    )


def training_cut(max_han_run: int) -> PreTokenizer:
    """The pre-tokenizer under which BPE is trained: Qwen2's pattern, then the finer cut, then bytes."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2), "isolated"),
            pre_tokenizers.Split(Regex(training_pattern(max_han_run)), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
