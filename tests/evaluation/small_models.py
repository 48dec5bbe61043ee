"""Tiny models with large weights, and a byte tokenizer with two merges, for the tests of evaluation."""

from __future__ import annotations

import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers

from fangcun.config.model import ModelConfig
from fangcun.config.resolve import resolve_model
from fangcun.generation import LanguageModel
from fangcun.model import Transformer, initialize
from fangcun.tokenizer import Tokenizer

SHAPES: dict[str, dict] = {
    "qwen3": {"n_query_groups": 2, "head_size": 16},
    "gpt2": {"norm_class": "LayerNorm", "norm_eps": 1e-5, "mlp_class": "GELU", "positions": "learned", "qk_norm": False, "bias": True, "attention_bias": True},
    "softcap": {"logit_softcap": 5.0, "exportable": False},
    "ngrams": {"ngram_rows": 512, "exportable": False},
}  # fmt: skip


def byte_tokenizer(*, eos: str = "<|endoftext|>") -> Tokenizer:
    """Ids 0-255 are bytes, 256 is ' A', 257 ends a document: letters are one token behind a space and two elsewhere."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {c: i for i, c in enumerate(alphabet)} | {"ĠA": 256}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ġ", "A")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([eos])
    return Tokenizer(backend)


def make_model(shape: str = "qwen3", *, seed: int = 0, vocab_size: int = 258, **changes: object) -> Transformer:
    family = shape if shape in ("qwen3", "gpt2") else "qwen3"
    wanted = (
        {"block_size": 32, "n_layer": 2, "n_head": 4, "n_embd": 32, "padding_multiple": 1} | SHAPES[shape] | changes
    )
    config = resolve_model(ModelConfig(family=family, **wanted), vocab_size)  # type: ignore[arg-type]
    model = Transformer(config)
    initialize(model, seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2 and config.padded_vocab_size not in parameter.shape:
                parameter.mul_(20)
    return model.eval()


def language_model(shape: str = "qwen3", **changes: object) -> LanguageModel:
    return LanguageModel(make_model(shape, **changes), byte_tokenizer())  # type: ignore[arg-type]


@torch.no_grad()
def log_probabilities(model: Transformer, ids: list[int]) -> torch.Tensor:
    """The reference: float64 log-probabilities of the id after each position, of one text by itself."""
    return model(torch.tensor([ids]))[0].double().log_softmax(-1)
