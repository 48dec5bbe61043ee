"""A tokenizer's report card: how it cuts six kinds of text, which hanzi it has, what its vocabulary costs.

The texts are short and come with the program, so that figures of different tokenizers and days can be set side by side.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from fangcun.tokenizer.convert import import_tokenizer
from fangcun.tokenizer.core import Tokenizer
from fangcun.tokenizer.decoding import byte_table
from fangcun.tokenizer.gb2312 import level_1, level_2
from fangcun.tokenizer.self_check import EVERYDAY, RARE

KINDS = ("modern", "classical", "poetry", "english", "code", "digits")
"""The shipped texts: modern and classical Chinese, Chinese poetry, English, code, digits."""

OWN = "own text"
BODY_LAYERS = 8
LONGEST_TOKENS = 10


def shipped_text(kind: str) -> str:
    """The text of a kind (see texts/README.md for where each is from)."""
    return resources.files("fangcun.tokenizer").joinpath(f"texts/{kind}.txt").read_text(encoding="utf-8")


def body_parameters(width: int) -> int:
    """Parameters of the small body that the embedding is compared with: 8 layers of 12 width² each."""
    return BODY_LAYERS * 12 * width**2


def report_cards(
    paths: Iterable[str | Path], texts: Callable[[Tokenizer], Iterable[str]] | None = None, *, width: int = 512
) -> list[dict[str, Any]]:
    """A card for each tokenizer (file, folder or run), named so that no two have the same name. See `report_card`.

    `texts` gives the user's own text in pieces that this tokenizer encodes as the whole. Raises FangcunError.
    """
    cards = []
    whole = [Path(path) for path in paths]
    for path, name in zip(whole, short_names(whole), strict=True):
        tokenizer = import_tokenizer(path).tokenizer
        own = texts(tokenizer) if texts is not None else None
        cards.append({"name": name, "path": str(path), **report_card(tokenizer, own, width=width)})
    return cards


def report_card(tokenizer: Tokenizer, own: Iterable[str] | None = None, *, width: int = 512) -> dict[str, Any]:
    """The figures of one tokenizer, ready for JSON.

    `texts`: for each kind, and for the `own` text where there is one: characters, bytes, tokens, characters and bytes a
    token. `gb2312`: share of the hanzi of each level that are a token of their own in a text. `unused_ids`: ids, special
    ones aside, that the own text (without one: the shipped texts) does not use. `embedding`: parameters of an embedding
    of `width`, and its share in a model with `body_parameters(width)` beside it, head tied. `round_trip`: whether every
    shipped text and test line decodes to itself, and the first that does not. `longest`: tokens of most characters.
    """
    used: set[int] = set()
    measured = {kind: _cut(tokenizer, [shipped_text(kind)], used) for kind in KINDS}
    if own is not None:
        used.clear()
        measured[OWN] = _cut(tokenizer, own, used)
    ordinary = tokenizer.vocab_size - len(tokenizer.special_ids)
    unused = ordinary - len(used - tokenizer.special_ids)
    embedding, body = tokenizer.vocab_size * width, body_parameters(width)
    lines = [*(shipped_text(kind) for kind in KINDS), *EVERYDAY, *RARE]
    failing = [line for line in lines if tokenizer.decode(tokenizer.encode_documents([line])[0]) != line]
    words = _token_texts(tokenizer)
    return {
        "vocab_size": tokenizer.vocab_size,
        "special_tokens": len(tokenizer.special_ids),
        "texts": measured,
        "gb2312": {"level_1": _single(tokenizer, level_1()), "level_2": _single(tokenizer, level_2())},
        "unused_ids": {"on": OWN if own is not None else "shipped texts", "ids": unused, "share": _round(unused, ordinary)},
        "embedding": {
            "width": width, "parameters": embedding, "body_parameters": body, "share": _round(embedding, embedding + body),
        },
        "round_trip": {"lines": len(lines), "failing": len(failing), "first_failing": failing[0] if failing else None},
        "longest": {"any": _longest(words), "chinese": _longest(word for word in words if _is_han(word))},
    }  # fmt: skip


def _round(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _cut(tokenizer: Tokenizer, texts: Iterable[str], used: set[int]) -> dict[str, Any]:
    """Counts and ratios of `texts`; the ids met are added to `used`."""
    characters = size_bytes = tokens = 0
    for text in texts:
        (ids,) = tokenizer.encode_documents([text])
        characters, size_bytes, tokens = characters + len(text), size_bytes + len(text.encode()), tokens + len(ids)
        used.update(ids)
    return {
        "characters": characters, "bytes": size_bytes, "tokens": tokens,
        "characters_per_token": _round(characters, tokens), "bytes_per_token": _round(size_bytes, tokens),
    }  # fmt: skip


def _single(tokenizer: Tokenizer, hanzi: str) -> float | None:
    """Share of `hanzi` that the tokenizer writes as one token (a space that it puts in front aside)."""
    found = 0
    for character, ids in zip(hanzi, tokenizer.encode_documents(list(hanzi)), strict=True):
        # The space is a token of its own, or the first byte of this one; both decode to the character.
        last = ids[-1] if ids else -1
        found += last != tokenizer.unk_id and tokenizer.decode([last]).removeprefix(" ") == character
    return _round(found, len(hanzi))


def _token_texts(tokenizer: Tokenizer) -> list[str]:
    """Texts of all ordinary tokens that are whole characters, by id."""
    table = byte_table(tokenizer.backend, tokenizer.special_ids)
    added = tokenizer.backend.get_added_tokens_decoder()
    ordinary = (i for i in range(tokenizer.vocab_size) if i not in added)
    if table is None:
        texts = (tokenizer.backend.decode([i]) for i in ordinary)
    else:
        texts = ((table.pieces[i] or b"").decode("utf-8", "replace") for i in ordinary)
    return [text for text in texts if text and "\ufffd" not in text]


def _longest(words: Iterable[str]) -> list[str]:
    """The ten longest in characters, of equals the lowest id first."""
    return sorted(words, key=len, reverse=True)[:LONGEST_TOKENS]


def _is_han(word: str) -> bool:
    return all(unicodedata.name(character, "").startswith("CJK UNIFIED") for character in word)


def short_names(paths: list[Path]) -> list[str]:
    """The last part of each path that tells it apart: the folder's name, or the file's; more of it where two agree."""
    whole = [path.expanduser().resolve() for path in paths]
    parts = [
        path.parts[:-1] if path.name in ("tokenizer.json", "tokenizer.model", "tokenizer", "vocab.json") else path.parts
        for path in whole
    ]
    for length in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(part[-length:]).replace("//", "/") for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]
