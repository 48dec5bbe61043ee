"""Tiny models of each family, with weights large enough that greedy text does not stand still, and a byte tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers

from fangcun.config.model import ModelConfig
from fangcun.config.resolve import resolve_model
from fangcun.model import Transformer, initialize, save_model
from fangcun.tokenizer import Tokenizer

SHAPES: dict[str, dict] = {
    "gpt2": {
        "norm_class": "LayerNorm",
        "norm_eps": 1e-5,
        "mlp_class": "GELU",
        "positions": "learned",
        "qk_norm": False,
        "bias": True,
        "attention_bias": True,
    },
    "llama": {"qk_norm": False, "tie_embeddings": False},
    "mistral": {"qk_norm": False, "n_query_groups": 2, "tie_embeddings": False},
    "qwen2": {"qk_norm": False, "n_query_groups": 2, "attention_bias": True},
    "qwen3": {"n_query_groups": 1, "head_size": 16},
}

MakeModel = Callable[..., Transformer]


def byte_tokenizer() -> Tokenizer:
    """Ids 0-255 are bytes, 256 ends a document."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|endoftext|>"])
    return Tokenizer(backend)


@pytest.fixture(scope="session")
def words() -> Tokenizer:
    return byte_tokenizer()


@pytest.fixture(scope="session")
def make_model() -> MakeModel:
    def make(family: str = "qwen3", *, seed: int = 0, vocab_size: int = 257, **changes: object) -> Transformer:
        shape = (
            {"block_size": 32, "n_layer": 2, "n_head": 4, "n_embd": 32, "padding_multiple": 1}
            | SHAPES[family]
            | changes
        )
        config = resolve_model(ModelConfig(family=family, **shape), vocab_size)  # type: ignore[arg-type]
        model = Transformer(config)
        initialize(model, seed)
        with torch.no_grad():
            # The matrices of the blocks alone: a large tied embedding would make each token predict itself.
            for parameter in model.parameters():
                if parameter.ndim == 2 and config.padded_vocab_size not in parameter.shape:
                    parameter.mul_(20)
        return model.eval()

    return make


@pytest.fixture
def save(tmp_path: Path, words: Tokenizer) -> Callable[[Transformer], Path]:
    """Write a model and the byte tokenizer as a Hugging Face folder."""

    def write(model: Transformer) -> Path:
        folder = tmp_path / "model"
        folder.mkdir(exist_ok=True)
        save_model(model, folder, eos_id=words.eos_id, pad_id=words.pad_id, bos_id=words.bos_id)
        words.save(folder)
        return folder

    return write
