"""A tokenizer in the words of a GGUF file, and the refusal of those that llama.cpp would read differently.

llama.cpp cuts text by a pattern that it knows by name, so that only tokenizers with exactly such a pattern can go there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from fangcun.errors import FangcunError
from fangcun.tokenizer import Tokenizer
from fangcun.tokenizer.patterns import CL100K, GPT2, QWEN2

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""gguf.TokenType."""

PRE_TOKENIZERS = {QWEN2: "qwen2", GPT2: "gpt-2", CL100K: "dbrx"}
"""Pattern -> the name under which llama.cpp has it. CL100K's is also "llama-bpe", which looks whole pieces up in the
vocabulary before it merges (`ignore_merges` in tokenizer.json)."""

_REMEDY = "Export with --to hf, or train with a byte-level BPE tokenizer (tokenizer.kind: bpe)."


@dataclass
class Vocabulary:
    """What a GGUF file says of a tokenizer."""

    pre: str
    tokens: list[str]
    types: list[int]
    merges: list[str]
    notes: list[str] = field(default_factory=list)


def gguf_vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """The tokenizer for llama.cpp. Raises FangcunError, with the reason, for one that would give other ids there."""
    content: dict[str, Any] = json.loads(tokenizer.content)
    model = content["model"]
    if model.get("type") != "BPE":
        raise _refusal(
            f"the tokenizer is of the kind {model.get('type')}, not BPE: a tokenizer of single characters or words has no "
            "counterpart in llama.cpp"
        )
    if model.get("byte_fallback"):
        raise _refusal(
            "the tokenizer is of sentencepiece's kind (byte fallback), whose merges llama.cpp replaces by scores that "
            "this tokenizer does not have: equal ids cannot be promised"
        )
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise _refusal(f"the tokenizer's model has {key} {model[key]!r}, which llama.cpp does not know")
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    if not merges:
        raise _refusal(
            "the tokenizer has no merges, so that each token is a single byte or character; llama.cpp opens byte-level "
            "BPE with merges only"
        )
    pre = _pre_tokenizer(content.get("pre_tokenizer"), bool(model.get("ignore_merges")))
    notes = _normalizer_notes(content.get("normalizer"))
    tokens = [f"[PAD{index}]" for index in range(tokenizer.vocab_size)]
    types = [UNUSED] * tokenizer.vocab_size
    for token, index in model["vocab"].items():
        tokens[index], types[index] = token, NORMAL
    for added in content["added_tokens"]:
        tokens[added["id"]] = added["content"]
        types[added["id"]] = CONTROL if added["special"] else USER_DEFINED
        if added["lstrip"] or added["rstrip"] or added["single_word"]:
            notes.append(
                f"The token {added['content']} takes spaces around it along, or stands alone only; llama.cpp does not look at that."
            )
    if len(set(tokens)) != len(tokens):
        double = next(token for index, token in enumerate(tokens) if token in tokens[:index])
        raise _refusal(f"the token {double!r} stands in the vocabulary twice")
    return Vocabulary(pre, tokens, types, merges, notes)


def _pre_tokenizer(raw: dict[str, Any] | None, ignore_merges: bool) -> str:
    """llama.cpp's name of the pattern. Raises FangcunError for an unknown one."""
    steps = [] if raw is None else raw["pretokenizers"] if raw["type"] == "Sequence" else [raw]
    if not steps or steps[-1]["type"] != "ByteLevel":
        raise _refusal(
            "the tokenizer spells text in characters, not in bytes (no ByteLevel pre-tokenizer); llama.cpp has no such kind"
        )
    if steps[-1].get("add_prefix_space"):
        raise _refusal("the tokenizer puts a space in front of the text (add_prefix_space)")
    patterns = [step["pattern"].get("Regex") for step in steps[:-1] if step["type"] == "Split"]
    if steps[-1].get("use_regex", True):
        patterns.append(GPT2)
    splits = [step for step in steps[:-1] if step["type"] == "Split"]
    plain = all(step.get("behavior") == "Isolated" and not step.get("invert") for step in splits)
    if len(splits) == len(steps) - 1 and plain and len(patterns) == 1 and patterns[0] in PRE_TOKENIZERS:
        name = PRE_TOKENIZERS[patterns[0]]
        if not ignore_merges:
            return name
        if name == "dbrx":
            return "llama-bpe"
        raise _refusal(f"the tokenizer ignores merges for whole pieces, which llama.cpp's {name} does not")
    shown = json.dumps(steps, ensure_ascii=False)
    raise _refusal(
        f"the tokenizer cuts text in a way that is none of those known here under llama.cpp's names "
        f"({', '.join(PRE_TOKENIZERS.values())}, llama-bpe): {shown[:200]}"
    )


def _normalizer_notes(raw: dict[str, Any] | None) -> list[str]:
    steps = [] if raw is None else raw["normalizers"] if raw["type"] == "Sequence" else [raw]
    odd = [step["type"] for step in steps if step["type"] != "NFC"]
    if odd:
        raise _refusal(f"the tokenizer changes text before it cuts it ({', '.join(odd)}), and llama.cpp does not")
    if steps:
        return [
            "The tokenizer composes accents (NFC), llama.cpp does not: text that is not in NFC gets other ids there."
        ]
    return []


def _refusal(reason: str) -> FangcunError:
    return FangcunError(f"No GGUF file can be written: {reason}. {_REMEDY}")
