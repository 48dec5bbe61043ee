"""Tokenizer: text to ids and back, over one standard `tokenizer.json`.

The same file opens in `tokenizers` and in `transformers` and gives the same ids there. Nothing is ever added in front
of or behind the text. In a prompt a special token's string is the token; in a document it is plain text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers

from fangcun.errors import FangcunError
from fangcun.tokenizer.decoding import ByteTable, byte_table
from fangcun.tokenizer.hf_folder import (
    CONFIG_FILE,
    NAMED_TOKENS,
    SPECIAL_FILE,
    TOKENIZER_FILE,
    read_backend,
    read_config,
)
from fangcun.tokenizer.stream import ByteStream, StreamDecoder, WindowStream

END_NAMES = (
    "<|endoftext|>",
    "</s>",
    "<|end_of_text|>",
    "<|end▁of▁sentence|>",
    "<｜end▁of▁sentence｜>",
    "<eos>",
    "[EOS]",
)
"""What the end of a document is called where no tokenizer_config.json says so."""


class Tokenizer:
    """An immutable tokenizer. Ids run from 0 to `vocab_size - 1`, added tokens included."""

    def __init__(
        self, backend: tokenizers.Tokenizer, config: dict[str, Any] | None = None, *, where: str = "the tokenizer"
    ) -> None:
        """`backend` must not be changed afterwards; `config` is the content of tokenizer_config.json,
        special tokens as plain strings.

        Raises FangcunError when no token ends a document. `where` names the tokenizer in that message.
        """
        self.backend = backend
        self.config: dict[str, Any] = dict(config or {})
        vocabulary = backend.get_vocab(with_added_tokens=True)
        self.vocab_size: int = max(vocabulary.values(), default=-1) + 1
        added = backend.get_added_tokens_decoder()
        self.special_ids: frozenset[int] = frozenset(index for index, token in added.items() if token.special)
        self.eos_id: int = self._find_end(vocabulary, where)
        self.pad_id: int | None = self._named_id("pad_token", vocabulary, where)
        self.bos_id: int | None = self._named_id("bos_token", vocabulary, where)
        self.unk_id: int | None = _unknown_id(backend)

    def _named_id(self, key: str, vocabulary: dict[str, int], where: str) -> int | None:
        name = self.config.get(key)
        if name is None:
            return None
        if name not in vocabulary:
            raise FangcunError(
                f"{where}: {CONFIG_FILE} calls {name!r} the {key}, but the vocabulary has no such token. Correct {key} there."
            )
        return vocabulary[name]

    def _find_end(self, vocabulary: dict[str, int], where: str) -> int:
        named = self._named_id("eos_token", vocabulary, where)
        if named is not None:
            return named
        for name in END_NAMES:
            if name in vocabulary:
                self.config["eos_token"] = name
                return vocabulary[name]
        raise FangcunError(
            f"{where} has no token that ends a document: expected one of {', '.join(END_NAMES[:3])}. Name the token as eos_token in a {CONFIG_FILE} beside it."
        )

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Open a folder with tokenizer.json (ours, a checkpoint, any Hugging Face folder) or the file itself.

        Other formats are converted first: `fangcun.tokenizer.import_tokenizer`. Raises FangcunError.
        """
        path = Path(path)
        file = path / TOKENIZER_FILE if path.is_dir() else path
        if not file.is_file():
            raise FangcunError(
                f"{path} has no {TOKENIZER_FILE}. Expected a tokenizer folder or a {TOKENIZER_FILE}; other formats are converted by: fangcun tokenizer demo --tokenizer.path {path} --out DIR (the folder is then DIR/tokenizer)"
            )
        return cls(read_backend(file)[0], read_config(file.parent)[0], where=str(path))

    @property
    def eos_token(self) -> str:
        """The string of the end-of-document token."""
        return self.backend.id_to_token(self.eos_id) or ""

    @property
    def chat_template(self) -> str | None:
        """The Jinja template that turns messages into a prompt, where the tokenizer has one."""
        template = self.config.get("chat_template")
        return template if isinstance(template, str) else None

    @cached_property
    def content(self) -> str:
        """The tokenizer.json as text."""
        return self.backend.to_str()

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the canonical tokenizer.json and the ids that end and pad."""
        content = json.loads(self.content)
        text = json.dumps(
            [content, self.eos_id, self.pad_id], sort_keys=True, ensure_ascii=False, separators=(",", ":")
        )
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    @cached_property
    def _plain(self) -> tokenizers.Tokenizer:
        """A second backend that reads special tokens' strings as text; the switch is a state of the backend."""
        plain = tokenizers.Tokenizer.from_str(self.content)
        plain.encode_special_tokens = True
        return plain

    @cached_property
    def _table(self) -> ByteTable | None:
        return byte_table(self.backend, self.special_ids)

    def encode(self, text: str, *, special_tokens: bool = True) -> list[int]:
        """Ids of a text, nothing added. With `special_tokens` (a prompt) `<|im_start|>` is the token, else it is text."""
        backend = self.backend if special_tokens else self._plain
        return backend.encode(text, add_special_tokens=False).ids

    def encode_documents(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of documents, in parallel over the cores. Special tokens' strings are plain text; no end is added."""
        return [encoding.ids for encoding in self._plain.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """The text of ids. Ids beyond the vocabulary stand for nothing; broken UTF-8 becomes U+FFFD."""
        if self._table is not None:
            return self._table.decode(ids, skip_special_tokens=skip_special_tokens)
        return self.backend.decode(
            [i for i in ids if 0 <= i < self.vocab_size], skip_special_tokens=skip_special_tokens
        )

    def stream(self, *, skip_special_tokens: bool = True, context: Iterable[int] = ()) -> StreamDecoder:
        """A decoder for ids that arrive one by one.

        `context` are ids that went before (a prompt): their text is not repeated, and the text that follows keeps a
        leading space that sentencepiece vocabularies would drop at the start of a text.
        """
        if self._table is not None:
            return ByteStream(self._table, skip_special_tokens=skip_special_tokens, context=context)
        return WindowStream(lambda ids: self.decode(ids, skip_special_tokens=skip_special_tokens), context=context)

    def pieces(self, ids: Iterable[int]) -> list[bytes] | None:
        """The bytes of each id as they stand in the text of all of them; None for decoders without a table of bytes.

        Joined they are the text where ids and text go both ways. Of a space that sentencepiece puts in front nothing is
        left. Special tokens stand for no byte.
        """
        table = self._table
        if table is None:
            return None
        found = [table.join([index], skip_special_tokens=True) for index in ids]
        if table.strips_space:
            first = next((place for place, piece in enumerate(found) if piece), None)
            if first is not None and found[first].startswith(b" "):
                found[first] = found[first][1:]
        return found

    def token_bytes(self) -> list[int]:
        """UTF-8 bytes that each id stands for, 0 for special tokens. Length `vocab_size`."""
        if self._table is not None:
            pieces = [len(piece or b"") for piece in self._table.pieces]
        else:
            pieces = [len(self.backend.decode([i]).encode()) for i in range(self.vocab_size)]
        return [0 if index in self.special_ids else size for index, size in enumerate(pieces)]

    def save(self, folder: Path) -> None:
        """Write tokenizer.json, tokenizer_config.json and special_tokens_map.json; `transformers` opens the folder.

        Raises FangcunError when tokenizer.json cannot be written.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self.backend.save(str(folder / TOKENIZER_FILE), pretty=False)
        except Exception as error:  # the library raises nothing narrower
            raise FangcunError(f"cannot write {folder / TOKENIZER_FILE}: {error} (disk full?)") from error
        config = {**self.config, "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        special = {key: name for key in NAMED_TOKENS if (name := self.config.get(key)) is not None}
        for file, content in ((CONFIG_FILE, config), (SPECIAL_FILE, special)):
            (folder / file).write_text(
                json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8", newline="\n"
            )


def _unknown_id(backend: tokenizers.Tokenizer) -> int | None:
    """Id of the token that the model gives for what it cannot spell; None where it has none."""
    name = getattr(backend.model, "unk_token", None)
    if name is None and isinstance(backend.model, tokenizers.models.Unigram):
        # The library keeps this number to itself.
        return json.loads(backend.to_str())["model"]["unk_id"]
    return backend.token_to_id(name) if name else None
