"""Activation checkpointing by block (Chen et al. 2016): less memory, a second forward pass of the blocks.

Only the input of each block is kept; what is inside is computed again when its gradient is due. Wrapped around the
blocks from outside: names of weights, checkpoints and results stay the same.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from fangcun.model.transformer import Block, Transformer


def recompute_blocks(model: Transformer) -> None:
    """From now on the blocks of `model` keep only their inputs in a forward pass with gradients."""
    noisy = model.config.dropout > 0 or model.config.attention_dropout > 0
    for block in model.blocks:
        assert isinstance(block, Block)
        block.forward = functools.partial(_forward, block, noisy)


def _forward(block: Block, noisy: bool, x: torch.Tensor, turn: Any, cache: Any, documents: Any) -> torch.Tensor:
    if cache is not None or not torch.is_grad_enabled():
        return Block.forward(block, x, turn, cache, documents)
    # The state of the random numbers is worth its price only where something is drawn.
    return checkpoint(Block.forward, block, x, turn, None, documents, use_reentrant=False, preserve_rng_state=noisy)
