"""Make a large BPE tokenizer fit a corpus: keep the tokens that the corpus uses most, and all that spells every text.

Ids are numbered anew from 0 in their old order. When every token that the corpus uses is kept, the corpus encodes to
exactly the old ids, mapped: its merges are all there, in their order, and nothing new competes with them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from fangcun.artifacts import Manifest, fingerprint, write_artifact
from fangcun.errors import FangcunError
from fangcun.tokenizer.bpe_file import BpeFile, Derivations
from fangcun.tokenizer.core import Tokenizer

ID_MAP = "id_map.npy"
REMOVED = -1

_ROLES = ("system", "user", "assistant", "tool")
_BATCH_CHARACTERS = 1 << 19
_COMPARED_CHARACTERS = 400_000


@dataclass(frozen=True)
class TrimmedTokenizer:
    """A smaller tokenizer and where its ids come from."""

    tokenizer: Tokenizer
    id_map: np.ndarray
    """int32, one entry for each old id: the new id, or -1 where the token was removed."""
    report: dict[str, Any]

    @property
    def kept(self) -> np.ndarray:
        """The old id of each new id, ascending."""
        return np.flatnonzero(self.id_map != REMOVED)

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files, id_map.npy and report.json into `folder`."""
        self.tokenizer.save(folder)
        np.save(Path(folder) / ID_MAP, self.id_map)
        text = json.dumps(self.report, ensure_ascii=False, indent=1)
        (Path(folder) / "report.json").write_text(text + "\n", encoding="utf-8", newline="\n")


def count_usage(tokenizer: Tokenizer, texts: Iterable[str]) -> np.ndarray:
    """How often each id occurs in `texts`, each encoded whole as a document is; int64 of length `vocab_size`."""
    counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    for batch in _batches(texts):
        for ids in tokenizer.encode_documents(batch):
            counts += np.bincount(np.asarray(ids, dtype=np.int64), minlength=len(counts))
    return counts


def trim_tokenizer(
    tokenizer: Tokenizer,
    texts: Iterable[str],
    size: int | None = None,
    *,
    where: str = "the tokenizer",
) -> TrimmedTokenizer:
    """Keep `size` tokens of a BPE tokenizer, those that `texts` use most.

    Args:
        tokenizer: byte-level BPE (GPT-2, Qwen, Llama 3), or sentencepiece BPE with byte fallback (Llama, ChatGLM).
        texts: documents of the corpus, read once.
        size: ids of the result. All bytes and all added tokens stay, and the role names that a chat template puts
            into every prompt. Then tokens are kept by how often the corpus uses them, each with the tokens that its
            merges pass through; one that does not fit any more is passed over.
            Where the corpus needs fewer, unused tokens with the lowest ids fill up: the tokenizer's own order of
            frequency. None: all that the corpus uses, and no more.
        where: names the tokenizer in errors.

    Raises:
        FangcunError: another kind of tokenizer, a size below what must stay or above what there is, no text.
    """
    file = BpeFile.of(tokenizer, where)
    derivations = file.derivations()
    always = file.base.union(*(derivations.through(index) for index in _template_ids(tokenizer)))
    most = len(file.vocabulary.keys() | file.added.keys())
    if size is not None and not len(always) <= size <= most:
        raise FangcunError(
            f"size is {size:,}, expected {len(always):,} (what every text and prompt of {where} needs) to {most:,} (all that it has)."
        )
    first: list[str] = []
    counts = count_usage(tokenizer, _remembering(texts, first))
    if not counts.any():
        raise FangcunError(f"There is no text to trim {where} to. Name the corpus with --text PATH.")
    kept, filled = _choose(file, derivations, set(always), counts, size)
    content = file.keep_only(kept)
    trimmed = _built(content, tokenizer, where)
    old = np.asarray(sorted(kept))
    id_map = np.full(file.n_ids, REMOVED, dtype=np.int32)
    id_map[old] = np.arange(len(old))
    used = counts > 0
    lost = used & (id_map == REMOVED)
    report = {
        "trimmed_from": where,
        "old_vocab_size": tokenizer.vocab_size,
        "vocab_size": trimmed.vocab_size,
        "always_kept": len(always),
        "filled_up": filled,
        "used_tokens": int(used.sum()),
        "used_tokens_removed": int(lost.sum()),
        "usage_kept_share": round(1 - int(counts[lost].sum()) / int(counts.sum()), 6),
        "sample": compare_pieces(tokenizer, trimmed, first),
    }
    return TrimmedTokenizer(trimmed, id_map, report)


def compare_pieces(old: Tokenizer, new: Tokenizer, texts: Sequence[str]) -> dict[str, Any]:
    """Tokens of both on `texts`, the share of the old pieces that the new tokenizer cuts the same, and the way back."""
    old_bytes, new_bytes = (np.asarray(each.token_bytes(), dtype=np.int64) for each in (old, new))
    old_tokens = new_tokens = same = 0
    comes_back = True
    for before, after in zip(old.encode_documents(texts), new.encode_documents(texts), strict=True):
        spans = [_spans(sizes[ids]) for sizes, ids in ((old_bytes, before), (new_bytes, after))]
        old_tokens, new_tokens, same = (
            old_tokens + len(before),
            new_tokens + len(after),
            same + len(spans[0] & spans[1]),
        )
        comes_back = comes_back and old.decode(before) == new.decode(after)
    return {
        "old_tokens": old_tokens,
        "tokens": new_tokens,
        "more_tokens": round(new_tokens / old_tokens - 1, 6) if old_tokens else None,
        "same_pieces_share": round(same / old_tokens, 6) if old_tokens else None,
        "gives_the_same_text_back": comes_back,
    }


def write_trimmed(trimmed: TrimmedTokenizer, out: Path, source_fingerprint: str) -> None:
    """Write the result as a tokenizer artefact at `out`. Raises FangcunError where something else is there."""
    tokenizer = trimmed.tokenizer
    manifest = Manifest(
        "tokenizer",
        fingerprint("tokenizer", "trim", source_fingerprint, tokenizer.fingerprint),
        {"eos_id": tokenizer.eos_id, "pad_id": tokenizer.pad_id, "tokenizer_fingerprint": tokenizer.fingerprint},
        {"vocab_size": tokenizer.vocab_size, "sample": trimmed.report["sample"]},
    )
    with write_artifact(Path(out), manifest) as folder:
        trimmed.save(folder)


def _template_ids(tokenizer: Tokenizer) -> set[int]:
    """Ids of the role names in the chat template and of the line ends beside them: a model knows them by these ids."""
    template = tokenizer.chat_template or ""
    roles = [role for role in _ROLES if role in template]
    return {index for word in [*roles, "\n", "\n\n"] for index in tokenizer.encode(word)} if roles else set()


def _choose(
    file: BpeFile, derivations: Derivations, kept: set[int], counts: np.ndarray, size: int | None
) -> tuple[set[int], int]:
    """The old ids to keep, those of `kept` among them, and how many of them only fill up."""
    for index in sorted(np.flatnonzero(counts).tolist(), key=lambda index: (-counts[index], index)):
        _take(derivations.through(index), kept, size)
        if size is not None and len(kept) == size:
            break
    needed = len(kept)
    if size is not None:
        for index in sorted(file.vocabulary.values()):
            if len(kept) == size:
                break
            _take(derivations.through(index), kept, size)
    return kept, len(kept) - needed


def _take(ids: Iterable[int], kept: set[int], size: int | None) -> None:
    missing = [index for index in ids if index not in kept]
    if size is None or len(kept) + len(missing) <= size:
        kept.update(missing)


def _built(content: dict[str, Any], old: Tokenizer, where: str) -> Tokenizer:
    """The trimmed tokenizer, checked to give every token the id that was meant. Raises FangcunError."""
    backend = tokenizers.Tokenizer.from_str(json.dumps(content))
    meant = content["model"]["vocab"] | {token["content"]: token["id"] for token in content["added_tokens"]}
    if backend.get_vocab(with_added_tokens=True) != meant:
        raise FangcunError(
            f"{where} cannot be trimmed: its added tokens stand between its other ids in a way that tokenizer.json cannot express."
        )
    return Tokenizer(backend, old.config, where=where)


def _spans(sizes: np.ndarray) -> set[tuple[int, int]]:
    ends = np.cumsum(sizes)
    return set(zip((ends - sizes).tolist(), ends.tolist(), strict=True))


def _remembering(texts: Iterable[str], kept: list[str]) -> Iterator[str]:
    """Pass `texts` on; keep the beginning of them for a comparison."""
    room = _COMPARED_CHARACTERS
    for text in texts:
        if room > 0:
            kept.append(text[:room])
            room -= len(text)
        yield text


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
