"""Nulls are filled in, contradictions refused by name, parameters counted as the model has them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fangcun.config import ModelConfig, count_parameters, resolve_model
from fangcun.errors import ConfigError

GPT2: dict[str, Any] = {
    "family": "gpt2",
    "norm_class": "LayerNorm",
    "mlp_class": "GELU",
    "positions": "learned",
    "qk_norm": False,
}


def test_nulls_are_filled_in_and_the_given_config_stays() -> None:
    config = ModelConfig(n_embd=384, n_head=6)
    resolved = resolve_model(config, 1000)
    assert config == ModelConfig(n_embd=384, n_head=6)
    assert (resolved.vocab_size, resolved.padded_vocab_size) == (1000, 1024)
    assert (resolved.head_size, resolved.n_query_groups, resolved.intermediate_size) == (64, 6, 1024)
    gelu = resolve_model(ModelConfig(**GPT2, n_embd=384, n_head=6), 1000)
    assert gelu.intermediate_size == 1536


@pytest.mark.parametrize("width", [64, 100, 384, 512, 768])
def test_swiglu_is_eight_thirds_rounded_up_to_64(width: int) -> None:
    hidden = resolve_model(ModelConfig(n_embd=width, n_head=2), 10).intermediate_size
    assert hidden is not None
    assert hidden % 64 == 0
    assert 0 <= hidden - 8 * width / 3 < 64


def test_a_vocabulary_written_out_may_be_larger_than_the_tokenizers_never_smaller() -> None:
    assert resolve_model(ModelConfig(vocab_size=50304), 50257).vocab_size == 50304
    with pytest.raises(ConfigError, match=r"vocab_size is 60, but the tokenizer has 65"):
        resolve_model(ModelConfig(vocab_size=60), 65)


CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    ({"n_embd": 100, "n_head": 6}, r"n_embd is 100.*n_head \(6\).*head_size"),
    ({"n_head": 6, "n_query_groups": 4}, r"n_query_groups is 4.*1, 2, 3, 6"),
    ({"head_size": 33}, "head_size leads to 33 rotated"),
    ({"head_size": 32, "rotary_percentage": 0.1, "exportable": False}, "rotary_percentage leads to 3 rotated"),
    ({"rotary_percentage": 0.0, "exportable": False}, "rotary_percentage is 0"),
    ({"padded_vocab_size": 60}, "padded_vocab_size is 60.*65"),
    ({"logit_softcap": 0.0, "exportable": False}, "logit_softcap is 0"),
    ({"gelu_approximate": "none"}, "gelu_approximate is none, but mlp_class is SwiGLU"),
]


@pytest.mark.parametrize(("changes", "named"), CONTRADICTIONS)
def test_a_contradiction_names_field_value_and_expectation(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        resolve_model(ModelConfig(**changes), 65)


def test_without_any_vocabulary_there_is_no_model() -> None:
    with pytest.raises(ConfigError, match="vocab_size is null"):
        resolve_model(ModelConfig())


IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({"logit_softcap": 20.0}, "logit_softcap is 20, qwen3 has null"),
    ({"mlp_class": "ReLU2"}, "mlp_class is ReLU2, qwen3 has SwiGLU"),
    ({"bias": True}, "bias is true, qwen3 has false"),
    ({"parallel_residual": True}, "parallel_residual is true"),
    ({"scale_embeddings": True}, "scale_embeddings is true"),
    ({"rotary_percentage": 0.5}, r"rotary_percentage is 0\.5"),
    ({"family": "llama", "qk_norm": False, "n_head": 6, "head_size": 48, "n_embd": 512}, r"n_embd is 512.*multiple of n_head \(6\).*family: mistral"),
    ({"family": "qwen2", "qk_norm": False}, "attention_bias is false, qwen2 has true.*family: llama or set family: mistral"),
    ({"family": "qwen2", "qk_norm": False, "attention_bias": True, "head_size": 32}, "head_size is 32, qwen2 has n_embd / n_head"),
    ({"family": "mistral", "qk_norm": False, "attention_bias": True}, "attention_bias is true, mistral has false"),
    ({"family": "llama"}, "qk_norm is true, llama has false.*family: qwen3"),
    (GPT2 | {"qk_norm": True}, "qk_norm is true, gpt2 has false"),
    (GPT2 | {"n_query_groups": 2}, r"n_query_groups is 2, gpt2 has n_head \(6\)"),
    (GPT2 | {"head_size": 32}, "head_size is 32, gpt2 has"),
    (GPT2 | {"norm_class": "RMSNorm"}, "norm_class is RMSNorm, gpt2 has LayerNorm"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "named"), IMPOSSIBLE)
def test_what_the_family_cannot_express_is_refused_with_what_would_work(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=f"{named}.*exportable: false"):
        resolve_model(ModelConfig(**changes), 65)
    resolve_model(ModelConfig(**changes | {"exportable": False}), 65)


def test_all_obstacles_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_model(ModelConfig(family="gpt2"), 65)
    for field in ("norm_class", "mlp_class", "positions", "qk_norm"):
        assert field in str(caught.value)


SHAPES = st.builds(
    dict,
    n_layer=st.integers(1, 3),
    n_head=st.sampled_from([1, 2, 4]),
    n_embd=st.sampled_from([16, 24, 32]),
    head_size=st.sampled_from([None, 4, 6]),
    n_query_groups=st.sampled_from([None, 1]),
    intermediate_size=st.sampled_from([None, 7]),
    norm_class=st.sampled_from(["RMSNorm", "LayerNorm"]),
    mlp_class=st.sampled_from(["SwiGLU", "GELU", "ReLU2"]),
    positions=st.sampled_from(["rope", "learned"]),
    qk_norm=st.booleans(),
    bias=st.booleans(),
    attention_bias=st.booleans(),
    tie_embeddings=st.booleans(),
    block_size=st.integers(1, 9),
    family=st.sampled_from(["gpt2", "llama", "mistral", "qwen2", "qwen3"]),
)


@settings(max_examples=60, deadline=None)
@given(SHAPES)
def test_the_count_is_that_of_the_model_and_resolving_twice_changes_nothing(shape: dict[str, Any]) -> None:
    from fangcun.model import Transformer

    config = resolve_model(ModelConfig(**shape, exportable=False), 50)
    assert resolve_model(config, 50) == config
    with torch.device("meta"):
        model = Transformer(config)
    assert count_parameters(config) == sum(p.numel() for p in model.parameters())


def test_known_models_have_their_known_sizes() -> None:
    microstories = ModelConfig(
        family="mistral", n_layer=6, n_head=6, head_size=48, n_embd=512, intermediate_size=768, qk_norm=False,
        padded_vocab_size=65024, block_size=512,
    )  # fmt: skip
    assert count_parameters(resolve_model(microstories, 64798)) == 43_915_776
    wiki = ModelConfig(
        family="qwen2", n_layer=12, n_head=8, n_query_groups=2, n_embd=512, intermediate_size=2048, qk_norm=False,
        attention_bias=True, block_size=512,
    )  # fmt: skip
    assert round(count_parameters(resolve_model(wiki, 151_665)) / 1e6, 1) == 123.3
    gpt2 = ModelConfig(**GPT2, n_layer=12, n_head=12, n_embd=768, block_size=1024, bias=True, padding_multiple=1)
    assert count_parameters(resolve_model(gpt2, 50257)) == 124_439_808


def test_counting_needs_a_resolved_config() -> None:
    with pytest.raises(ConfigError, match="resolve_model"):
        count_parameters(ModelConfig())
    assert dataclasses.is_dataclass(resolve_model(ModelConfig(), 5))
