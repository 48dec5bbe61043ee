"""The characters of a nanoGPT model, rebuilt from its text: `meta.pkl` is a pickle and is not opened.

nanoGPT's prepare.py numbers the sorted characters of a text from 0. A document's end and a stand-in for unknown
characters, which we need and it does not have, come behind them, and get rows of their own.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tokenizers
import torch
from tokenizers import AddedToken, decoders, models

from fangcun.errors import ConfigError, FangcunError
from fangcun.importing.foreign import ForeignModel
from fangcun.model import model_of
from fangcun.tokenizer import Tokenizer

END, UNKNOWN = "<|endoftext|>", "<unk>"


def characters_of(file: Path) -> Tokenizer:
    """A tokenizer with the ids that nanoGPT's prepare.py gives the characters of a UTF-8 text. Raises FangcunError.

    As there, line ends of any kind count as one newline character.
    """
    try:
        with open(file, encoding="utf-8") as text:
            alphabet: set[str] = set()
            while block := text.read(1 << 20):
                alphabet.update(block)
    except OSError as error:
        raise ConfigError(f"--characters-from: {file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"--characters-from: {file} is not a UTF-8 text (byte {error.start}).") from error
    if not alphabet:
        raise ConfigError(f"--characters-from: {file} is empty, expected the text that the model was trained on.")
    names = sorted(alphabet)
    backend = tokenizers.Tokenizer(
        models.BPE(vocab={name: i for i, name in enumerate([*names, END, UNKNOWN])}, merges=[], unk_token=UNKNOWN)
    )
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in (END, UNKNOWN)])
    return Tokenizer(backend, {"eos_token": END, "unk_token": UNKNOWN, "add_prefix_space": False})


def fit_characters(foreign: ForeignModel, tokenizer: Tokenizer, file: Path) -> ForeignModel:
    """`foreign` with rows for the two tokens of `characters_of` that it lacks, the mean of the others.

    The logit of such a row is the mean of the others', its probability therefore at most that of one token of a uniform
    guess (the geometric mean of the probabilities is below their arithmetic mean). Logits of characters stay as they
    are. Raises FangcunError when the number of characters is not that of the model.
    """
    model = foreign.model
    rows, characters = int(model.head_weight.shape[0]), tokenizer.vocab_size - 2
    if rows != characters:
        raise FangcunError(
            f"--characters-from: {file} has {characters:,} different characters, the model's vocabulary {rows:,}. Name the text that nanoGPT's prepare.py read (input.txt), unchanged."
        )
    state = dict(model.state_dict())
    for name in ("embedding.weight", "head.weight"):
        if name in state:
            mean = state[name].mean(dim=0, keepdim=True)
            state[name] = torch.cat((state[name], mean.expand(2, -1))).contiguous()
    config = dataclasses.replace(model.config, vocab_size=rows + 2, padded_vocab_size=rows + 2)
    note = (
        f"Two tokens were added to the {rows:,} characters, {END} and {UNKNOWN}; their rows are the mean of the others."
    )
    return dataclasses.replace(foreign, model=model_of(config, state, "cpu"), notes=[*foreign.notes, note])
