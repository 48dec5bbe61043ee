"""Which documents are held out for validation: by the hash of each, or the tail of the stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from fangcun.corpus.documents import Document

HashOrTail = Literal["hash", "tail"]

_FEW_DOCUMENTS = 200
_LARGE_CORPUS_BYTES = 1_000_000_000


def choose_split(val_split: str, documents: int) -> HashOrTail:
    """`auto` is tail under 200 documents (hashing a handful is a lottery), else hash."""
    if val_split == "auto":
        return "tail" if documents < _FEW_DOCUMENTS else "hash"
    return "tail" if val_split == "tail" else "hash"


def choose_share(val_share: float | None, size_bytes: int) -> float:
    """Share held out: as given, or 0.1, or 0.005 above 1 GB of UTF-8 text."""
    if val_share is not None:
        return val_share
    return 0.005 if size_bytes > _LARGE_CORPUS_BYTES else 0.1


def is_held_out(document: Document, share: float) -> bool:
    """Whether hashing puts a document into validation.

    Depends on its text alone: adding documents moves none of the others, copies of a text fall on the same side, and
    the validation set of a smaller share is part of that of a larger one.
    """
    return int(document.id, 16) < share * 2**64


def split_by_hash(documents: Iterable[Document], share: float) -> Iterator[tuple[str, Document]]:
    """Yield ("train" or "val", document)."""
    for document in documents:
        yield ("val" if is_held_out(document, share) else "train"), document


def split_by_tail(
    documents: Iterable[Document], share: float, characters: int, before: int = 0
) -> Iterator[tuple[str, Document]]:
    """Yield ("train" or "val", document) so that exactly the last share of all `characters` is validation.

    The document on the border is cut in two; its parts get ids of their own. `before` characters come before `documents`.
    """
    left = int(characters * (1 - share)) - before
    for document in documents:
        size = document.characters
        if size <= left:
            yield "train", document
        elif left <= 0:
            yield "val", document
        else:
            yield "train", Document(document.text[:left], document.source, f"{document.id}-1")
            yield "val", Document(document.text[left:], document.source, f"{document.id}-2")
        left -= size
