"""tiktoken rank files (Qwen, Llama 3, OpenAI) as BPE with merges: the same ids in the tokenizers library.

A rank file lists byte strings with their ids; the lower rank is merged first. The pair that makes a token is found by
replaying BPE on its bytes with lower ranks only. The file names neither the pattern that cuts the text nor the special
tokens: both are known by the number of ranks.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, models

from fangcun.errors import FangcunError
from fangcun.tokenizer.decoding import byte_characters
from fangcun.tokenizer.patterns import CL100K, GPT2, QWEN2, byte_level, byte_level_decoder


@dataclass(frozen=True)
class _Known:
    pattern: str
    special: dict[str, int]
    eos: str
    pad: str | None = None


def _llama3_special() -> dict[str, int]:
    names = ["<|begin_of_text|>", "<|end_of_text|>", *(f"<|reserved_special_token_{i}|>" for i in range(4))]
    names += ["<|start_header_id|>", "<|end_header_id|>", "<|reserved_special_token_4|>", "<|eot_id|>"]
    names += [f"<|reserved_special_token_{i}|>" for i in range(5, 251)]
    return {name: 128_000 + i for i, name in enumerate(names)}


def _known(count: int) -> _Known | None:
    """The family that a rank file of `count` ranks belongs to."""
    if count == 151_643:
        names = {"<|endoftext|>": count, "<|im_start|>": count + 1, "<|im_end|>": count + 2}
        return _Known(QWEN2, names, "<|endoftext|>", "<|endoftext|>")
    if count == 50_256:
        return _Known(GPT2, {"<|endoftext|>": 50_256}, "<|endoftext|>")
    if count == 100_256:
        names = {
            "<|endoftext|>": 100_257,
            "<|fim_prefix|>": 100_258,
            "<|fim_middle|>": 100_259,
            "<|fim_suffix|>": 100_260,
        }
        return _Known(CL100K, {**names, "<|endofprompt|>": 100_276}, "<|endoftext|>")
    if count == 128_000:
        return _Known(CL100K, _llama3_special(), "<|end_of_text|>")
    return None


def read_ranks(file: Path) -> dict[bytes, int]:
    """Token bytes -> rank. Raises FangcunError on a line that is not `base64 rank`, or on a gap in the ranks."""
    ranks: dict[bytes, int] = {}
    with open(file, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                token, rank = line.split()
                ranks[base64.b64decode(token, validate=True)] = int(rank)
            except (ValueError, binascii.Error) as error:
                raise FangcunError(
                    f"{file}:{number}: expected a base64 string and a rank, found {line[:40]!r}."
                ) from error
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise FangcunError(
            f"{file}: the ranks do not run from 0 to {len(ranks) - 1} without a gap, so the file is damaged or of another kind."
        )
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise FangcunError(
            f"{file}: {len(missing)} of the 256 single bytes are missing, so not every text could be spelled."
        )
    return ranks


def parts_of(token: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    """What BPE makes of `token` with the ranks below its own: its two parts, or more when it can never be merged."""
    rank, parts = ranks[token], [token[i : i + 1] for i in range(len(token))]
    beyond = len(ranks)
    while len(parts) > 2:
        lowest, at = min((ranks.get(parts[i] + parts[i + 1], beyond), i) for i in range(len(parts) - 1))
        if lowest >= rank:
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def convert_ranks(
    file: Path,
) -> tuple[tokenizers.Tokenizer, dict[str, str], list[str], Callable[[str], list[int]] | None]:
    """A rank file as (tokenizer, named special tokens, notes, the original encoder).

    The encoder is tiktoken's, None where tiktoken is not installed. Raises FangcunError.
    """
    ranks = read_ranks(file)
    notes = []
    known = _known(len(ranks))
    if known is None:
        known = _Known(QWEN2, {"<|endoftext|>": len(ranks)}, "<|endoftext|>")
        notes.append(
            f"A rank file does not say how text is cut, and {len(ranks):,} ranks are of no family known here: Qwen2's "
            f"pattern is used, and <|endoftext|> was appended as id {len(ranks):,}."
        )
    character = {byte: sign for sign, byte in byte_characters().items()}
    spelled = {token: "".join(character[byte] for byte in token) for token in ranks}
    merges, unreachable = [], 0
    for token in sorted(ranks, key=ranks.__getitem__):
        if len(token) > 1:
            parts = parts_of(token, ranks)
            if len(parts) == 2:
                merges.append((spelled[parts[0]], spelled[parts[1]]))
            else:
                unreachable += 1
    # tiktoken looks a whole piece up before it merges; that only matters for tokens that no merge reaches.
    model = models.BPE(
        vocab={spelled[token]: rank for token, rank in ranks.items()}, merges=merges, ignore_merges=unreachable > 0
    )
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = byte_level(known.pattern)
    backend.decoder = byte_level_decoder()
    names = {index: name for name, index in known.special.items()}
    for index in range(len(ranks), max(names) + 1):
        name = names.get(index, f"<|unused_{index}|>")
        backend.add_special_tokens([AddedToken(name, normalized=False, special=True)])
    special = {"eos_token": known.eos, **({"pad_token": known.pad} if known.pad else {})}
    return backend, special, notes, _original(known.pattern, ranks)


def _original(pattern: str, ranks: dict[bytes, int]) -> Callable[[str], list[int]] | None:
    try:
        import tiktoken
    except ImportError:
        return None
    return tiktoken.Encoding("check", pat_str=pattern, mergeable_ranks=ranks, special_tokens={}).encode_ordinary
