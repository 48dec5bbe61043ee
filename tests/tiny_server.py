"""A tiny model of random weights that knows conversations, for tests of the server and the pages."""

from __future__ import annotations

import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers

from fangcun.config.model import ModelConfig
from fangcun.config.resolve import resolve_model
from fangcun.generation import LanguageModel
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
