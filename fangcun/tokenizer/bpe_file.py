"""The inside of a BPE tokenizer.json: its vocabulary, its merges in order, and what no text can do without."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from fangcun.errors import FangcunError
from fangcun.tokenizer.core import Tokenizer
from fangcun.tokenizer.decoding import SPACE_MARK, byte_characters

_BYTE_PIECES = tuple(f"<0x{byte:02X}>" for byte in range(256))


@dataclass(frozen=True)
class BpeFile:
    """A byte-level BPE, or a sentencepiece BPE with byte fallback, taken apart."""

    content: dict[str, Any]
    """The whole tokenizer.json."""
    vocabulary: dict[str, int]
    """Tokens of the model -> id; added tokens that the model does not know are in `added`."""
    merges: list[tuple[str, str]]
    added: dict[str, int]
    base: frozenset[int]
    """Ids that spell every text: 256 bytes, added tokens, the unknown token, sentencepiece's space."""

    @classmethod
    def of(cls, tokenizer: Tokenizer, where: str) -> BpeFile:
        """Take `tokenizer` apart. Raises FangcunError for other models, and for those that cannot spell every byte."""
        content = json.loads(tokenizer.backend.to_str())
        model = content["model"]
        if model["type"] != "BPE":
            raise FangcunError(
                f"{where} is a {model['type']} model. Only BPE can be trimmed: its tokens are made by merges that can be followed."
            )
        for key in ("continuing_subword_prefix", "end_of_word_suffix"):
            if model.get(key):
                raise FangcunError(
                    f"{where} has {key} {model[key]!r}; only byte-level BPE and BPE with byte fallback can be trimmed."
                )
        vocabulary: dict[str, int] = model["vocab"]
        fallback = bool(model.get("byte_fallback"))
        needed = _BYTE_PIECES if fallback else tuple(byte_characters())
        lacking = [name for name in needed if name not in vocabulary]
        if lacking:
            raise FangcunError(
                f"{where} lacks {len(lacking)} of the 256 bytes (such as {lacking[0]!r}), so that without its rarer tokens some text could not be spelled. "
                "Only byte-level BPE and BPE with byte fallback can be trimmed."
            )
        added = {token["content"]: token["id"] for token in content["added_tokens"]}
        base = {vocabulary[name] for name in needed} | set(added.values())
        base |= {vocabulary[name] for name in (model.get("unk_token"),) if name in vocabulary}
        if fallback and SPACE_MARK in vocabulary:
            # Spelled in bytes it would come back as the mark itself, not as a space.
            base.add(vocabulary[SPACE_MARK])
        merges = [(left, right) for left, right in map(_pair, model["merges"])]
        return cls(content, vocabulary, merges, added, frozenset(base))

    @property
    def n_ids(self) -> int:
        """One more than the largest id."""
        return max([*self.vocabulary.values(), *self.added.values()]) + 1

    def derivations(self) -> Derivations:
        """The way that merges make each token."""
        return Derivations(self)

    def keep_only(self, ids: Iterable[int]) -> dict[str, Any]:
        """A tokenizer.json with these ids alone, numbered anew from 0 in the order that they had.

        Merges between kept tokens whose union is kept stay, in their order. Raises FangcunError for a post-processor
        that cannot be carried over.
        """
        new = {old: index for index, old in enumerate(sorted(set(ids)))}
        model = dict(self.content["model"])
        kept = {token: new[old] for token, old in self.vocabulary.items() if old in new}
        model["vocab"] = dict(sorted(kept.items(), key=lambda item: item[1]))
        model["merges"] = [
            [left, right] for left, right in self.merges if left in kept and right in kept and left + right in kept
        ]
        added = [{**token, "id": new[token["id"]]} for token in self.content["added_tokens"]]
        post = _renumbered(self.content.get("post_processor"), new)
        return {**self.content, "model": model, "added_tokens": added, "post_processor": post}


class Derivations:
    """For each token, the tokens that its merges pass through."""

    def __init__(self, file: BpeFile) -> None:
        self._ranks = {pair: rank for rank, pair in enumerate(file.merges)}
        self._vocabulary = file.vocabulary
        self._tokens = {index: token for token, index in file.vocabulary.items()}

    def through(self, index: int) -> list[int]:
        """Ids of all tokens on the way to the token `index`, itself included.

        BPE on the token alone: text around a token changes nothing about how it is made, since no merge crosses its
        ends. A token that its merges do not reach needs none.
        """
        token = self._tokens.get(index)
        if token is None:
            return [index]
        parts = list(token)
        passed = {index, *(self._vocabulary[part] for part in parts if part in self._vocabulary)}
        while len(parts) > 1:
            ranked = [(self._ranks[pair], at) for at, pair in enumerate(pairwise(parts)) if pair in self._ranks]
            if not ranked:
                break
            at = min(ranked)[1]
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
            passed.add(self._vocabulary[parts[at]])
        return sorted(passed)


def _pair(merge: Any) -> tuple[str, str]:
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return left, right


def _renumbered(post: Any, new: dict[int, int]) -> Any:
    if not isinstance(post, dict):
        return post
    if post["type"] == "Sequence":
        return {**post, "processors": [_renumbered(step, new) for step in post["processors"]]}
    if post["type"] == "ByteLevel":
        return post
    if post["type"] == "TemplateProcessing":
        special = {
            name: {**token, "ids": [new[index] for index in token["ids"]]}
            for name, token in post["special_tokens"].items()
        }
        return {**post, "special_tokens": special}
    raise FangcunError(
        f"The tokenizer has a post-processor of type {post['type']}, whose ids cannot be renumbered. Expected ByteLevel or TemplateProcessing."
    )
