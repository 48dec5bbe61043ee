"""A tiny model of random weights that knows conversations, for tests of the server and the pages."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers

from fangcun.config.model import ModelConfig
from fangcun.config.resolve import resolve_model
from fangcun.generation import Engine, LanguageModel
from fangcun.model import Transformer, initialize
from fangcun.tokenizer import Tokenizer

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
EOS, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"


def byte_tokenizer(*, chat: bool) -> Tokenizer:
    """Ids 0-255 are bytes, 256 ends a document, 257 and 258 stand around the turns of a conversation."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([EOS, START, END])
    return Tokenizer(backend, {"chat_template": TEMPLATE} if chat else None)


def tiny_lm(*, chat: bool = True, block_size: int = 256, seed: int = 0) -> LanguageModel:
    """Random weights, large enough that greedy text does not stand still."""
    words = byte_tokenizer(chat=chat)
    shape = {"block_size": block_size, "n_layer": 2, "n_head": 4, "n_embd": 32, "n_query_groups": 1, "head_size": 16}
    config = resolve_model(ModelConfig(family="qwen3", padding_multiple=1, **shape), words.vocab_size)
    model = Transformer(config)
    initialize(model, seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2 and config.padded_vocab_size not in parameter.shape:
                parameter.mul_(20)
    return LanguageModel(model.eval(), words)


@dataclass
class Served:
    """A server that runs."""

    url: str
    engine: Engine
    lm: LanguageModel

    @property
    def base_url(self) -> str:
        """What OpenAI's client is given."""
        return f"{self.url}/v1"

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    def wait_until_idle(self, seconds: float = 10.0) -> None:
        """Return when the engine has nothing to do; fail after `seconds`."""
        end = time.monotonic() + seconds
        while self.engine.running or self.engine.waiting:
            assert time.monotonic() < end, f"{self.engine.running} samples run, {self.engine.waiting} wait"
            time.sleep(0.01)


Serve = Callable[..., Served]
