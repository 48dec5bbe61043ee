"""Models and tokenizers as other programs leave them, small enough for tests."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from shapes import random_config, random_model
from tiny import story

from fangcun.model import save_model
from fangcun.tokenizer import Tokenizer, train_bpe


@cache
def tokenizer() -> Tokenizer:
    """Byte-level BPE of 300 ids."""
    return train_bpe([story()], vocab_size=300, max_han_run=4)[0]


def save_tokenizer(folder: Path) -> Path:
    tokenizer().save(folder)
    return folder


def huggingface_folder(folder: Path, family: str, seed: int = 1, **changes: Any) -> Any:
    """A folder as `save_pretrained` writes it, with nothing of ours in it; returns the model of transformers."""
    config = random_config(family, seed, **({"vocab_size": 320, "block_size": 32} | changes))
    save_model(random_model(config, seed), folder / "seed")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder / "seed").eval()
    del theirs.config.fangcun
    theirs.config.eos_token_id = theirs.generation_config.eos_token_id = tokenizer().eos_id
    theirs.save_pretrained(folder / "hf")
    save_tokenizer(folder / "hf")
    return theirs


def change_json(file: Path, **changes: Any) -> None:
    """Set keys of a JSON file; None removes one."""
    content = json.loads(file.read_text(encoding="utf-8")) | changes
    file.write_text(json.dumps({k: v for k, v in content.items() if v is not None}), encoding="utf-8")


@torch.no_grad()
def largest_difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.1, "logits without contrast prove nothing"
    return float((ours - theirs).abs().max())
