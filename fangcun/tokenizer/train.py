"""Make a tokenizer from text: one token a character, or byte-level BPE."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers

from fangcun.errors import ConfigError, FangcunError
from fangcun.tokenizer.bpe import GB2312_FROM_VOCABULARY, MIN_FREQUENCY, learn_bpe
from fangcun.tokenizer.core import Tokenizer
from fangcun.tokenizer.decoding import byte_characters
from fangcun.tokenizer.patterns import QWEN2, byte_level, byte_level_decoder, training_cut

PAD, END, IM_START, IM_END, UNKNOWN = "<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<unk>"
SPECIAL_TOKENS = (PAD, END, IM_START, IM_END)
"""Special tokens of the tokenizers made here; their ids are 0 to 3."""

Trainer = Literal["fangcun", "tokenizers"]

CHATML_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def _config(**more: Any) -> dict[str, Any]:
    return {
        "eos_token": END,
        "pad_token": PAD,
        "additional_special_tokens": [IM_START, IM_END],
        "add_prefix_space": False,
        "chat_template": CHATML_TEMPLATE,
        **more,
    }


def _special(names: Iterable[str]) -> list[AddedToken]:
    return [AddedToken(name, normalized=False, special=True) for name in names]


def train_char(texts: Iterable[str]) -> Tokenizer:
    """One token for each character that occurs, by code point after the special tokens; `<unk>` (id 4) for others.

    Pass the validation text too, so that no known character is unknown there.
    """
    alphabet: set[str] = set()
    for text in texts:
        alphabet.update(text)
    if not alphabet:
        raise FangcunError("There is no text to take characters from: the corpus is empty. Check corpus.paths.")
    names = [*SPECIAL_TOKENS, UNKNOWN, *sorted(alphabet)]
    # BPE without merges is a character vocabulary that needs no cutting of the text into one-character words, and is
    # twice as fast as that. A special token's entry cannot be reached through it: nothing merges.
    backend = tokenizers.Tokenizer(
        models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[], unk_token=UNKNOWN)
    )
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens(_special((*SPECIAL_TOKENS, UNKNOWN)))
    return Tokenizer(backend, _config(unk_token=UNKNOWN))


def train_bpe(
    texts: Iterable[str],
    *,
    vocab_size: int,
    max_han_run: int,
    trainer: Trainer = "fangcun",
    gb2312: bool | Literal["auto"] = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Tokenizer, list[str]]:
    """Byte-level BPE with `vocab_size` ids, special tokens and all 256 bytes included. Returns notes beside it.

    In training only, hanzi stand in runs of at most `max_han_run`, scripts are kept apart, digits stand alone; the
    tokenizer that comes out cuts by Qwen2's pattern. `trainer` "fangcun" is `learn_bpe` (which see for `gb2312` and
    `progress`), "tokenizers" the trainer of that library, which takes no notice of these two. The same texts give the
    same tokenizer. Raises ConfigError when `vocab_size` has no room for the bytes, or for the hanzi of `gb2312: true`.
    """
    least = 256 + len(SPECIAL_TOKENS)
    if vocab_size < least:
        raise ConfigError(
            f"tokenizer.vocab_size is {vocab_size}, but byte-level BPE needs at least {least}: 256 bytes and {len(SPECIAL_TOKENS)} special tokens. For a smaller vocabulary use tokenizer.kind: char."
        )
    if gb2312 is True and vocab_size < GB2312_FROM_VOCABULARY:
        raise ConfigError(
            f"tokenizer.gb2312 is true and tokenizer.vocab_size {vocab_size:,}: the hanzi of GB2312 level 1 need a vocabulary of {GB2312_FROM_VOCABULARY:,} or more. Raise tokenizer.vocab_size or leave tokenizer.gb2312 at auto."
        )
    if trainer == "fangcun":
        backend, notes = _own(texts, vocab_size, max_han_run, gb2312, progress)
    else:
        backend, notes = _library(texts, vocab_size, max_han_run), []
    backend.pre_tokenizer = byte_level(QWEN2)
    backend.decoder = byte_level_decoder()
    tokenizer = Tokenizer(backend, _config())
    if tokenizer.vocab_size < vocab_size:
        notes.append(
            f"The vocabulary has {tokenizer.vocab_size:,} ids instead of {vocab_size:,}: the text has no more pairs that occur twice."
        )
    return tokenizer, notes


def _own(
    texts: Iterable[str],
    vocab_size: int,
    max_han_run: int,
    gb2312: bool | Literal["auto"],
    progress: Callable[[int, int], None] | None,
) -> tuple[tokenizers.Tokenizer, list[str]]:
    # The ids of the bytes are those that the library's trainer gives: by the sign that stands for the byte in the file.
    byte_order = [byte for _, byte in sorted(byte_characters().items())]
    learned = learn_bpe(
        texts, vocab_size=vocab_size, max_han_run=max_han_run, gb2312=gb2312, byte_order=byte_order,
        first_id=len(SPECIAL_TOKENS), progress=progress,
    )  # fmt: skip
    sign = {byte: character for character, byte in byte_characters().items()}

    def spell(token: bytes) -> str:
        return "".join(sign[byte] for byte in token)

    backend = tokenizers.Tokenizer(
        models.BPE(
            vocab={token: i for i, token in enumerate((*SPECIAL_TOKENS, *map(spell, learned.tokens)))},
            merges=[(spell(left), spell(right)) for left, right in learned.merges],
        )
    )
    backend.add_special_tokens(_special(SPECIAL_TOKENS))
    return backend, learned.notes


def _library(texts: Iterable[str], vocab_size: int, max_han_run: int) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = training_cut(max_han_run)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=_special(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return backend
