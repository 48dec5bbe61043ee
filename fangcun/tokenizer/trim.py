"""A borrowed BPE tokenizer with only the tokens that a text needs, and the map from its old ids to the new ones.

Tokens are taken out from the leaves: always the one whose loss lengthens the text least, and never one that a token still
there is made of. Bytes and special tokens stay, so that every text can still be written and reads back the same.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from fangcun.errors import ConfigError, FangcunError
from fangcun.tokenizer.core import Tokenizer
from fangcun.tokenizer.hf_folder import NAMED_TOKENS
from fangcun.tokenizer.merge_tree import MergeTree, find_alphabet

MAP_FILE = "id_map.npy"
_BATCH_CHARACTERS = 1 << 20
_ROLES = ("system", "user", "assistant", "tool")
_WITH_IDS = ("TemplateProcessing", "BertProcessing", "RobertaProcessing", "Sequence")


@dataclass(frozen=True)
class Trimmed:
    """A smaller tokenizer and where its ids come from."""

    tokenizer: Tokenizer
    kept_ids: np.ndarray
    """Old ids in the order of the new ones, int64: new id i was `kept_ids[i]`. They ascend, so the order of ids stays."""
    id_map: np.ndarray
    """New id of each old id, -1 where it is gone, int32; length: the old tokenizer's vocab_size."""
    needed_tokens: int
    """Size at which the text that was counted encodes to the same tokens as before."""

    @property
    def exact(self) -> bool:
        """Whether everything that the counted text uses was kept: it encodes to the mapped ids of its old ones."""
        return len(self.kept_ids) >= self.needed_tokens

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files and the map as `id_map.npy`. Raises FangcunError."""
        self.tokenizer.save(folder)
        np.save(folder / MAP_FILE, self.id_map)


def count_tokens(tokenizer: Tokenizer, texts: Iterable[str]) -> np.ndarray:
    """How often each id occurs in `texts`, int64 of length vocab_size. Special tokens' strings are plain text."""
    counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    batch: list[str] = []
    waiting = 0
    for text in texts:
        batch.append(text)
        waiting += len(text)
        if waiting >= _BATCH_CHARACTERS:
            _count(tokenizer, batch, counts)
            batch, waiting = [], 0
    _count(tokenizer, batch, counts)
    return counts


def _count(tokenizer: Tokenizer, batch: list[str], counts: np.ndarray) -> None:
    for ids in tokenizer.encode_documents(batch):
        counts += np.bincount(np.array(ids, dtype=np.int64), minlength=len(counts))


def trim_tokenizer(
    tokenizer: Tokenizer,
    counts: Sequence[int] | np.ndarray,
    size_tokens: int | None = None,
    *,
    keep_ids: Iterable[int] = (),
    where: str = "the tokenizer",
) -> Trimmed:
    """A tokenizer of `size_tokens` ids (null: as many as the counted text needs), by how often each old id occurs.

    Leaves of the tree of merges go first, those with the least occurrences, and of equals the highest id; each gives
    its occurrences to its parts (leaf-based pruning, Purason et al. 2025, "Teaching Old Tokenizers New Words"). New ids
    run from 0 without a gap in the order of the old ones. Every text decodes to the same string as with the old
    tokenizer. `keep_ids` stay whatever the counts, as special tokens and bytes do, and so do the role names in the chat
    template: a model knows its prompts by them.

    Raises ConfigError for a size that cannot be, FangcunError for a tokenizer that cannot be trimmed.
    """
    state: dict[str, Any] = json.loads(tokenizer.backend.to_str())
    whole = find_alphabet(state, where) | {token["content"] for token in state["added_tokens"]}
    vocabulary = tokenizer.backend.get_vocab(with_added_tokens=True)
    tree = MergeTree(state["model"], whole)
    parts = {token: tree.parts(token) for token in vocabulary}
    uses = {token: int(counts[index]) for token, index in vocabulary.items()}
    named = {str(tokenizer.config.get(name)) for name in NAMED_TOKENS} & vocabulary.keys()
    wanted = set(keep_ids)
    wished = {token for token, index in vocabulary.items() if index in wanted} | set(_role_tokens(tokenizer))
    staying = _closure((whole & vocabulary.keys()) | named | wished, parts)
    needed = _closure((token for token, count in uses.items() if count), parts) | staying
    size = len(needed) if size_tokens is None else size_tokens
    if not len(staying) <= size <= len(vocabulary):
        raise ConfigError(
            f"--size is {size:,}, expected {len(staying):,} (bytes, special tokens, the chat template's role names{' and hanzi' if wanted else ''}, which stay) to {len(vocabulary):,} (all of {where}). The text needs {len(needed):,}."
        )
    kept = _prune(vocabulary, parts, uses, staying, size)
    kept_ids = np.array(sorted(vocabulary[token] for token in kept), dtype=np.int64)
    id_map = np.full(tokenizer.vocab_size, -1, dtype=np.int32)
    id_map[kept_ids] = np.arange(len(kept_ids), dtype=np.int32)
    new_ids = {token: int(id_map[vocabulary[token]]) for token in kept}
    return Trimmed(_rebuild(tokenizer, state, new_ids, where), kept_ids, id_map, len(needed))


def _role_tokens(tokenizer: Tokenizer) -> set[str]:
    """The tokens of the role names in the chat template, and of the line ends beside them; none without a template."""
    roles = [role for role in _ROLES if role in (tokenizer.chat_template or "")]
    words = [*roles, "\n", "\n\n"] if roles else []
    ids = {index for word in words for index in tokenizer.encode(word)}
    return {tokenizer.backend.id_to_token(index) or "" for index in ids}


def _closure(tokens: Iterable[str], parts: dict[str, tuple[str, ...]]) -> set[str]:
    found: set[str] = set()
    waiting = list(tokens)
    while waiting:
        token = waiting.pop()
        if token not in found:
            found.add(token)
            waiting += parts[token]
    return found


def _prune(
    vocabulary: dict[str, int], parts: dict[str, tuple[str, ...]], uses: dict[str, int], staying: set[str], size: int
) -> set[str]:  # fmt: skip
    """The `size` tokens that are left."""
    uses = dict(uses)
    kept = set(vocabulary)
    needed_by = Counter(part for token in kept for part in set(parts[token]))

    def entry(token: str) -> tuple[int, int, str]:
        # What the text grows by: at least 1 a use, for a one-byte character that becomes a byte is a change too.
        return uses[token] * max(1, len(parts[token]) - 1), -vocabulary[token], token

    leaves = [entry(token) for token in kept if not needed_by[token] and token not in staying]
    heapq.heapify(leaves)
    while len(kept) > size:
        token = heapq.heappop(leaves)[2]
        kept.remove(token)
        for part in parts[token]:
            uses[part] += uses[token]
        for part in set(parts[token]):
            needed_by[part] -= 1
            if not needed_by[part] and part not in staying:
                heapq.heappush(leaves, entry(part))
    return kept


def _rebuild(tokenizer: Tokenizer, state: dict[str, Any], new_ids: dict[str, int], where: str) -> Tokenizer:
    """The tokenizer of `state` with the tokens of `new_ids` alone; merges keep their order."""
    model = state["model"]
    vocabulary = {token: new_ids[token] for token in model["vocab"] if token in new_ids}
    model["vocab"] = dict(sorted(vocabulary.items(), key=lambda item: item[1]))
    model["merges"] = [
        pair for pair in model["merges"] if all(t in vocabulary for t in (*pair, "".join(pair)))
    ]  # fmt: skip
    for token in state["added_tokens"]:
        token["id"] = new_ids[token["content"]]
    state["added_tokens"].sort(key=lambda token: token["id"])
    if (state["post_processor"] or {}).get("type") in _WITH_IDS:
        state["post_processor"] = None  # holds old ids; Fangcun adds nothing in front of or behind a text
    backend = tokenizers.Tokenizer.from_str(json.dumps(state))
    wrong = [token for token, index in new_ids.items() if backend.token_to_id(token) != index]
    if wrong or backend.get_vocab_size(with_added_tokens=True) != len(new_ids):
        raise FangcunError(
            f"{where}: its ids cannot be made dense, for the added token {(wrong or ['?'])[0]!r} stands between the others. Take it as it is: --tokenizer.path."
        )
    return Tokenizer(backend, tokenizer.config, where=where)


def compare_tokens(old: Tokenizer, new: Tokenizer, texts: Iterable[str]) -> dict[str, Any]:
    """Both tokenizers on `texts`: tokens before and after, and the share of old tokens that stand where they stood.

    `same_pieces_share` counts the old tokens whose span of bytes is one token now too; `same_text` says whether every
    text decodes to what it did.
    """
    old_bytes, new_bytes = np.array(old.token_bytes()), np.array(new.token_bytes())
    before = after = same = size_bytes = 0
    same_text = True
    for text in texts:
        (old_ids,), (new_ids,) = old.encode_documents([text]), new.encode_documents([text])
        before, after, size_bytes = before + len(old_ids), after + len(new_ids), size_bytes + len(text.encode())
        same += len(np.intersect1d(_spans(old_bytes[old_ids]), _spans(new_bytes[new_ids]), assume_unique=True))
        same_text = same_text and old.decode(old_ids) == new.decode(new_ids)
    return {
        "bytes": size_bytes,
        "tokens_before": before,
        "tokens_after": after,
        "more_tokens_share": round(after / before - 1, 6) if before else None,
        "same_pieces_share": round(same / before, 6) if before else None,
        "same_text": same_text if before else None,
    }


def _spans(lengths: np.ndarray) -> np.ndarray:
    """(start, length) of consecutive spans as single numbers."""
    lengths = lengths.astype(np.int64)
    return (np.cumsum(lengths) - lengths) * (1 << 20) + lengths
