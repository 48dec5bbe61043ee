"""GPT-2's pair of files, vocab.json and merges.txt, as one tokenizer.json."""

from __future__ import annotations

import json
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, models

from fangcun.errors import FangcunError
from fangcun.tokenizer.patterns import GPT2, QWEN2, byte_level, byte_level_decoder

END = "<|endoftext|>"
_QWEN2_VOCABULARY = 151_643


def read_merges(file: Path) -> list[tuple[str, str]]:
    """The pairs in order; a first line `#version: …` is optional. Raises FangcunError."""
    merges = []
    with open(file, encoding="utf-8", newline="\n") as lines:
        for number, raw in enumerate(lines, 1):
            line = raw.rstrip("\r\n")
            if not line or (number == 1 and line.startswith("#version")):
                continue
            pair = line.split(" ")
            if len(pair) != 2:
                raise FangcunError(f"{file}:{number}: expected two tokens separated by a space, found {line[:60]!r}.")
            merges.append((pair[0], pair[1]))
    return merges


def convert_gpt2_files(
    vocabulary_file: Path, merges_file: Path, added: dict[int, str]
) -> tuple[tokenizers.Tokenizer, dict[str, str], list[str]]:
    """The pair as (tokenizer, named special tokens, notes). `added` are tokens that tokenizer_config.json adds.

    The pattern is GPT-2's, or Qwen2's for a vocabulary of Qwen2's size. Raises FangcunError.
    """
    try:
        vocabulary = json.loads(vocabulary_file.read_text(encoding="utf-8"))
        assert isinstance(vocabulary, dict) and all(isinstance(index, int) for index in vocabulary.values())
    except (ValueError, AssertionError) as error:
        raise FangcunError(f"{vocabulary_file} is no vocabulary: expected a JSON object of token: id.") from error
    if sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise FangcunError(f"{vocabulary_file}: the ids do not run from 0 to {len(vocabulary) - 1} without a gap.")
    merges = read_merges(merges_file)
    for pair in merges:
        for token in (*pair, "".join(pair)):
            if token not in vocabulary:
                raise FangcunError(
                    f"{merges_file}: the merge {' '.join(pair)!r} needs the token {token!r}, which {vocabulary_file.name} does not have. The two files do not belong together."
                )
    qwen2 = len(vocabulary) == _QWEN2_VOCABULARY
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = byte_level(QWEN2 if qwen2 else GPT2)
    backend.decoder = byte_level_decoder()
    notes = []
    made = {left + right for left, right in merges}
    special = {
        name for name in (END, "<s>", "</s>", "<pad>", "<unk>", "<mask>") if name in vocabulary and name not in made
    }
    tokens = {vocabulary[name]: name for name in special} | added
    if END not in vocabulary and not any(name == END for name in added.values()) and "</s>" not in vocabulary:
        tokens[max([len(vocabulary) - 1, *tokens]) + 1] = END
        notes.append(f"{vocabulary_file.name} has no token that ends a document: {END} was appended.")
    add_in_order(backend, tokens, vocabulary_file)
    end = "</s>" if END not in tokens.values() else END
    return backend, {"eos_token": end}, notes


def add_in_order(backend: tokenizers.Tokenizer, tokens: dict[int, str], file: Path) -> None:
    """Add special tokens so that each gets its id. Raises FangcunError where an id cannot be had."""
    for index, name in sorted(tokens.items()):
        backend.add_special_tokens([AddedToken(name, normalized=False, special=True)])
        if (received := backend.token_to_id(name)) != index:
            raise FangcunError(
                f"{file}: the added token {name!r} should have id {index}, but the next free id is {received}. Remove it from the added tokens, or name the ones between."
            )
