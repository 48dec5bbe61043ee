"""Which tokens a BPE token is made of: the parts that its last merge joins, and what it can be spelled with at worst.

Inside a longer text a token comes about by the same merges as alone, for merging goes by rank and a span that ends as one
token has taken no part in any merge across its border. So a set of tokens that holds the parts of each of its tokens
is enough to make each of them, everywhere.
"""

from __future__ import annotations

from typing import Any

from fangcun.errors import FangcunError
from fangcun.tokenizer.decoding import SPACE_MARK, byte_characters

# Bytes that occur in no UTF-8 text; some vocabularies leave them out.
_NEVER_IN_UTF8 = {0xC0, 0xC1, *range(0xF5, 0x100)}


def find_alphabet(state: dict[str, Any], where: str) -> frozenset[str]:
    """The tokens that spell any text byte by byte, and what else must stay for that.

    `state` is the content of a tokenizer.json. Raises FangcunError for one that is no BPE, or cannot spell every text.
    """
    model = state["model"]
    if model["type"] != "BPE":
        raise FangcunError(
            f"{where} is a {model['type']} tokenizer; only BPE can be trimmed, where each token is made of two smaller ones. Take it as it is: --tokenizer.path."
        )
    for field in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(field):
            raise FangcunError(f"{where} has {field} {model[field]!r}; only BPE without it can be trimmed.")
    vocabulary = model["vocab"]
    if model.get("byte_fallback"):
        names = {byte: f"<0x{byte:02X}>" for byte in range(256)}
        # A space mark spelled in bytes would come back as the mark and not as a space.
        more = {SPACE_MARK} & vocabulary.keys()
    else:
        names = {byte: character for character, byte in byte_characters().items()} if _is_byte_level(state) else {}
        more = set()
    missing = [byte for byte in range(256) if names.get(byte) not in vocabulary and byte not in _NEVER_IN_UTF8]
    if missing:
        what = f"lacks {len(missing)} of the bytes" if names else "is neither byte-level nor has it byte fallback"
        raise FangcunError(
            f"{where} {what}, so that with fewer tokens it could not spell every text. Expected byte-level BPE (GPT-2, Qwen) or sentencepiece BPE with byte fallback (Llama, ChatGLM)."
        )
    unknown = {model["unk_token"]} & vocabulary.keys() if model.get("unk_token") else set()
    return frozenset({names[byte] for byte in names if names[byte] in vocabulary} | more | unknown)


def _is_byte_level(state: dict[str, Any]) -> bool:
    cut = state["pre_tokenizer"] or {}
    steps = cut.get("pretokenizers", [cut])
    return any(step.get("type") == "ByteLevel" for step in steps)


class MergeTree:
    """The parts of every token of a BPE model, found when asked for."""

    def __init__(self, model: dict[str, Any], whole: frozenset[str]) -> None:
        """`model` is the model of a tokenizer.json; tokens in `whole` (bytes, special tokens) have no parts."""
        self._vocabulary: dict[str, int] = model["vocab"]
        self._fallback = bool(model.get("byte_fallback"))
        self._whole = whole
        self._ranks = {(left, right): rank for rank, (left, right) in enumerate(model["merges"])}
        self._makers: dict[str, list[tuple[str, str]]] = {}
        for pair in self._ranks:
            self._makers.setdefault("".join(pair), []).append(pair)

    def parts(self, token: str) -> tuple[str, ...]:
        """What the token falls into when it is taken out: the two sides of its last merge, or the bytes of a character.

        A token that no merge reaches (taken whole from the vocabulary) falls into what merging makes of its text.
        """
        if token in self._whole:
            return ()
        makers = self._makers.get(token, ())
        if len(makers) == 1:
            return makers[0]
        pieces, last = self._merge(token)
        if pieces == [token]:
            return last or tuple(self._spell(token))
        return tuple(piece for piece in pieces if piece in self._vocabulary)

    def _spell(self, character: str) -> list[str]:
        return [f"<0x{byte:02X}>" for byte in character.encode("utf-8", "replace")] if self._fallback else []

    def _merge(self, token: str) -> tuple[list[str], tuple[str, str] | None]:
        """BPE on one token's text: lowest rank first, leftmost among equals. The pieces left and the last merge."""
        pieces: list[str] = []
        for character in token:
            pieces += [character] if character in self._vocabulary else self._spell(character)
        last = None
        while len(pieces) > 1:
            ranked = [
                (rank, at)
                for at in range(len(pieces) - 1)
                if (rank := self._ranks.get((pieces[at], pieces[at + 1]))) is not None
            ]
            if not ranked:
                break
            at = min(ranked)[1]
            last = (pieces[at], pieces[at + 1])
            pieces[at : at + 2] = ["".join(last)]
        return pieces, last
