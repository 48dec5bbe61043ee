"""Filling in what a ModelConfig leaves at null, refusing what contradicts itself, and counting its parameters."""

from __future__ import annotations

import dataclasses

from fangcun.config.families import check_exportable, output_bias, qkv_bias
from fangcun.config.model import ModelConfig
from fangcun.errors import ConfigError


def resolve_model(config: ModelConfig, vocab_size: int | None = None) -> ModelConfig:
    """A copy of `config` without nulls (but `logit_softcap` and `ngram_rows`), checked against itself and against its family.

    Args:
        config: as written in a recipe.
        vocab_size: ids that the tokenizer can give; needed where `config.vocab_size` is null.

    Raises:
        ConfigError: two fields contradict each other, or the family cannot express the shape.
    """
    ids = config.vocab_size or vocab_size
    if ids is None:
        raise ConfigError(
            "model.vocab_size is null and no tokenizer is known yet. Write the number of ids, or name a tokenizer."
        )
    if vocab_size is not None and ids < vocab_size:
        raise ConfigError(
            f"model.vocab_size is {ids:,}, but the tokenizer has {vocab_size:,} ids. Leave it at null, or write at least {vocab_size}."
        )
    rows = config.padded_vocab_size or _round_up(ids, config.padding_multiple)
    if rows < ids:
        raise ConfigError(
            f"model.padded_vocab_size is {rows:,}, expected at least vocab_size ({ids:,}). Leave it at null to round up."
        )
    if config.head_size is None and config.n_embd % config.n_head:
        raise ConfigError(
            f"model.n_embd is {config.n_embd}, expected a multiple of n_head ({config.n_head}) while head_size is null. "
            "Write head_size, or change one of the two."
        )
    head_size = config.head_size or config.n_embd // config.n_head
    groups = config.n_query_groups or config.n_head
    if config.n_head % groups:
        raise ConfigError(
            f"model.n_query_groups is {groups}, expected a divisor of n_head ({config.n_head}): {_divisors(config.n_head)}."
        )
    if config.positions == "rope":
        _check_rotation(head_size, config.rotary_percentage)
    if config.logit_softcap == 0:
        raise ConfigError("model.logit_softcap is 0, which would make all logits equal. Write null for no cap.")
    if config.gelu_approximate != "tanh" and config.mlp_class != "GELU":
        raise ConfigError(
            f"model.gelu_approximate is {config.gelu_approximate}, but mlp_class is {config.mlp_class}, which has no GELU. "
            "Leave it out, or write mlp_class: GELU."
        )
    if config.ngram_length < 2 and config.ngram_rows is not None:
        raise ConfigError(
            "model.ngram_length is 1, expected 2 or more: single ids have the embedding. Write 2, or leave it out."
        )
    resolved = dataclasses.replace(
        config,
        vocab_size=ids,
        padded_vocab_size=rows,
        head_size=head_size,
        n_query_groups=groups,
        intermediate_size=config.intermediate_size or default_intermediate_size(config),
    )
    check_exportable(resolved)
    return resolved


def default_intermediate_size(config: ModelConfig) -> int:
    """4 x n_embd; with the third matrix of SwiGLU 8/3 x n_embd, rounded up to 64, so that the MLP weighs the same."""
    if config.mlp_class == "SwiGLU":
        return _round_up(-(-8 * config.n_embd // 3), 64)
    return 4 * config.n_embd


def rotated_size(head_size: int, rotary_percentage: float) -> int:
    """How many of a head's dimensions are rotated."""
    return int(head_size * rotary_percentage)


def count_parameters(config: ModelConfig) -> int:
    """Parameters of a resolved config, padded rows of the embedding included, a tied head counted once."""
    width, hidden, head = config.n_embd, config.intermediate_size, config.head_size
    groups, rows = config.n_query_groups, config.padded_vocab_size
    if hidden is None or head is None or groups is None or rows is None:
        raise ConfigError("count_parameters needs a resolved config: pass it through resolve_model first.")
    norm_bias = config.bias and config.norm_class == "LayerNorm"
    norm = width * (2 if norm_bias else 1)
    qkv = (config.n_head + 2 * groups) * head
    attention = width * qkv + config.n_head * head * width
    attention += qkv * qkv_bias(config) + width * output_bias(config) + 2 * head * config.qk_norm
    inward = 2 if config.mlp_class == "SwiGLU" else 1
    mlp = (inward + 1) * width * hidden + (inward * hidden + width) * config.bias
    embeddings = rows * width * (1 if config.tie_embeddings else 2)
    embeddings += config.block_size * width * (config.positions == "learned")
    embeddings += (config.ngram_rows or 0) * width
    return embeddings + config.n_layer * (2 * norm + attention + mlp) + norm


def _check_rotation(head_size: int, share: float) -> None:
    rotated = rotated_size(head_size, share)
    if rotated == 0:
        raise ConfigError(
            f"model.rotary_percentage is {share:g}: with positions: rope no dimension would be rotated. Write 1.0, or positions: learned."
        )
    if rotated % 2:
        field = "head_size" if share == 1 else "rotary_percentage"
        raise ConfigError(
            f"model.{field} leads to {rotated} rotated dimensions a head (head_size {head_size}), expected an even number: "
            "rotary positions turn pairs. Write another head_size, or n_embd and n_head whose quotient is even."
        )


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _divisors(number: int) -> str:
    return ", ".join(str(d) for d in range(1, number + 1) if number % d == 0)
