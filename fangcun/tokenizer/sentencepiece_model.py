"""sentencepiece models (ChatGLM, Llama, Chinese-LLaMA) as a tokenizer.json with the same ids.

sentencepiece puts a space in front of the text, writes spaces as ▁, and spells what its pieces cannot in bytes. BPE
models store no merges: every way to cut a piece in two known pieces is one, and the better score goes first.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from fangcun.errors import FangcunError
from fangcun.tokenizer.decoding import SPACE_MARK
from fangcun.tokenizer.gpt2_files import add_in_order

UNIGRAM, BPE = 1, 2
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

CHATGLM_PIECES = 64_789
CHATGLM_SPECIAL = (
    "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>",
)  # fmt: skip
"""What ChatGLM3 appends to its 64,789 pieces, in the order of the ids."""

_NEVER = -1e9
"""Score of a unigram piece that text must not reach: any other spelling is better."""


@dataclass
class Converted:
    """A sentencepiece model in the tokenizers library's form."""

    backend: tokenizers.Tokenizer
    special: dict[str, str]
    notes: list[str]
    original: Callable[[str], list[int]]
    tie: Callable[[list[int], list[int]], bool]
    """Whether two ways to cut a text score the same. sentencepiece adds up in single precision and the tokenizers
    library in double, so that in runs such as ======= a unigram model may cut the same pieces in another order."""


def convert_sentencepiece(file: Path, added: dict[int, str]) -> Converted:
    """Convert a BPE or unigram model. `added` are tokens that tokenizer_config.json adds behind the pieces.

    Raises FangcunError for a damaged file, another kind of model, or settings that cannot be carried over.
    """
    proto, original = _open(file)
    trainer, pieces = proto.trainer_spec, list(proto.pieces)
    if trainer.model_type not in (UNIGRAM, BPE):
        raise FangcunError(
            f"{file} is a sentencepiece model of words or characters; only BPE and unigram models can be converted."
        )
    if trainer.treat_whitespace_as_suffix or not proto.normalizer_spec.escape_whitespaces:
        raise FangcunError(
            f"{file} writes spaces in a way (as a suffix, or unescaped) that tokenizer.json cannot express."
        )
    names = [piece.piece for piece in pieces]
    if len(set(names)) != len(names):
        raise FangcunError(f"{file} has the same piece twice, so its ids cannot be carried over.")
    notes: list[str] = []
    build = _unigram if trainer.model_type == UNIGRAM else _bpe
    backend = tokenizers.Tokenizer(build(pieces, trainer, notes))
    backend.normalizer = _normalizer(proto.normalizer_spec)
    if trainer.model_type == UNIGRAM and (cut := _control_cut(pieces)):
        backend.pre_tokenizer = pre_tokenizers.Split(Regex(cut), "isolated")
    steps: list[Any] = [decoders.Replace(SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    if proto.normalizer_spec.add_dummy_prefix:
        steps.append(decoders.Strip(" ", 1, 0))
    backend.decoder = decoders.Sequence(steps)
    tokens = {i: p.piece for i, p in enumerate(pieces) if p.type in (UNKNOWN, CONTROL)} | added
    if trainer.model_type == BPE and len(pieces) == CHATGLM_PIECES:
        tokens |= {CHATGLM_PIECES + i: name for i, name in enumerate(CHATGLM_SPECIAL)}
        notes.append(
            "ChatGLM's special tokens were appended as ids 64,789 to 64,797; sop and eop are written <sop> and <eop>, so "
            "that these letters inside a prompt stay letters."
        )
    add_in_order(backend, tokens, file)
    users = [AddedToken(p.piece, normalized=False, special=False) for p in pieces if p.type == USER_DEFINED]
    if users:
        backend.add_tokens(users)
    return Converted(backend, _special(pieces, trainer), notes, original, _tie(pieces, trainer))


def _open(file: Path) -> tuple[Any, Callable[[str], list[int]]]:
    try:
        import sentencepiece
        from sentencepiece import sentencepiece_model_pb2
    except ImportError as error:
        raise FangcunError(
            f"{file} is a sentencepiece model, and reading it needs packages that are not installed ({error}). Run: pip install sentencepiece protobuf tiktoken"
        ) from error
    content = file.read_bytes()
    proto = getattr(sentencepiece_model_pb2, "ModelProto")()  # noqa: B009 (made at run time, unknown to type checkers)
    try:
        proto.ParseFromString(content)
        processor = sentencepiece.SentencePieceProcessor(model_proto=content)
    except Exception as error:  # protobuf and sentencepiece raise kinds of their own
        raise FangcunError(f"{file} is no sentencepiece model, or it is damaged: {error}.") from error
    return proto, processor.encode


def _bpe(pieces: list[Any], trainer: Any, notes: list[str]) -> models.Model:
    """Merges from scores.

    sentencepiece merges the neighbours whose union has the best score, leftmost first. Several cuts of one piece share
    its score there; here they stand in a row, the longest left part first, which is what leftmost-first comes to.
    """
    if any(piece.type == UNUSED for piece in pieces):
        notes.append("Pieces marked as unused are not avoided.")
    scores = {piece.piece: piece.score for piece in pieces if piece.type in (NORMAL, UNUSED)}
    merges = []
    for index, (piece, score) in enumerate(scores.items()):
        for cut in range(len(piece) - 1, 0, -1):
            left, right = piece[:cut], piece[cut:]
            if left in scores and right in scores:
                merges.append((-score, index, -cut, left, right))
    lonely = sum(1 for piece in scores if len(piece) > 1 and any(character not in scores for character in piece))
    if lonely:
        notes.append(
            f"{lonely:,} pieces hold characters that are no pieces themselves; text may reach them differently."
        )
    merges.sort()
    return models.BPE(
        vocab={piece.piece: i for i, piece in enumerate(pieces)},
        merges=[(left, right) for *_, left, right in merges],
        unk_token=next(piece.piece for piece in pieces if piece.type == UNKNOWN),
        fuse_unk=True,
        byte_fallback=bool(trainer.byte_fallback),
    )


def _unigram(pieces: list[Any], trainer: Any, notes: list[str]) -> models.Model:
    normal = {piece.piece for piece in pieces if piece.type == NORMAL}
    lonely = sum(1 for piece in normal if any(character not in normal for character in piece))
    if lonely:
        # The unreachable score below also lowers the price of an unknown character, which only matters here.
        notes.append(
            f"{lonely:,} pieces hold characters that are no pieces themselves; text may reach them differently."
        )
    return models.Unigram(
        [(piece.piece, float(piece.score) if piece.type in (NORMAL, USER_DEFINED) else _NEVER) for piece in pieces],
        unk_id=next(i for i, piece in enumerate(pieces) if piece.type == UNKNOWN),
        byte_fallback=bool(trainer.byte_fallback),
    )


def _control_cut(pieces: list[Any]) -> str | None:
    """A pattern that matches inside the strings of control pieces, where a score cannot keep text from reaching them.

    A string such as `</s>` with a character that is no piece would cost an unknown character otherwise, which scores
    below any piece. No piece spans the place between an unknown and a known character, so a cut there changes nothing.
    """
    known = {piece.piece for piece in pieces if piece.type in (NORMAL, USER_DEFINED) and len(piece.piece) == 1}
    places = []
    for name in (piece.piece for piece in pieces if piece.type not in (NORMAL, USER_DEFINED)):
        for at in range(1, len(name)):
            if (name[at - 1] in known) != (name[at] in known):
                places.append(f"(?<={re.escape(name[:at])})(?={re.escape(name[at:])})")
                break
    return "|".join(places) or None


def _tie(pieces: list[Any], trainer: Any) -> Callable[[list[int], list[int]], bool]:
    if trainer.model_type == BPE:
        return lambda ours, theirs: False
    scores = [float(piece.score) for piece in pieces]

    def tie(ours: list[int], theirs: list[int]) -> bool:
        difference = sum(scores[i] for i in ours) - sum(scores[i] for i in theirs)
        return abs(difference) <= 1e-6 * sum(abs(scores[i]) for i in theirs)

    return tie


def _normalizer(spec: Any) -> normalizers.Normalizer:
    """sentencepiece's normalizer: its character map, spaces cleaned, a space in front, spaces as ▁."""
    steps: list[Any] = []
    if spec.precompiled_charsmap:
        steps += _character_map(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(r"\A +|[ ▁]+\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend(SPACE_MARK))
    steps.append(normalizers.Replace(" ", SPACE_MARK))
    return normalizers.Sequence(steps)


def _character_map(character_map: normalizers.Precompiled) -> list[Any]:
    """The map as sentencepiece applies it.

    The library looks up short grapheme clusters whole and takes the first rule that fits their beginning, so that in
    "Ⅳ" with an accent the accent is lost. A control character, which the map drops, put before each combining mark
    keeps clusters apart; NFC then composes what the map's longer keys compose.
    """
    if character_map.normalize_str("\x01a") != "a" or character_map.normalize_str("e\u0301") != "é":
        return [character_map]
    apart = normalizers.Replace(Regex(r"(?=[\p{M}\u200d])"), "\x01")
    return [apart, character_map, normalizers.Replace("\x01", ""), normalizers.NFC()]


def _special(pieces: list[Any], trainer: Any) -> dict[str, str]:
    """Which pieces begin, end, pad and stand for the unknown, by the ids that the model names."""
    result = {"unk_token": next(piece.piece for piece in pieces if piece.type == UNKNOWN)}
    for key, index in (("bos_token", trainer.bos_id), ("eos_token", trainer.eos_id), ("pad_token", trainer.pad_id)):
        if 0 <= index < len(pieces) and pieces[index].type == CONTROL:
            result[key] = pieces[index].piece
    if len(pieces) == CHATGLM_PIECES:
        result["pad_token"] = result["unk_token"]
    return result
