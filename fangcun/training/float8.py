"""Matrix products in float8 for NVIDIA's Hopper and newer (precision fp8-mixed), by torchao, an extra.

The linear layers of the blocks round their inputs, weights and gradients to 8 bits for each product, with one scale a
tensor (Micikevicius et al. 2022); weights stay float32 and everything else is as in bf16-mixed. Names of weights and
checkpoints do not change. Embedding and head keep bf16: their rounding costs most and the head has a loss of its own.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import nn

from fangcun.errors import FangcunError
from fangcun.model import Transformer

FIRST_CAPABILITY = (8, 9)
"""Ada and Hopper: the first GPUs with float8 products."""

MULTIPLE = 16
"""The hardware multiplies matrices whose sides are multiples of this."""


def check_float8(device: torch.device) -> None:
    """Raise FangcunError where float8 products cannot work."""
    other = "Use --precision bf16-mixed."
    if device.type != "cuda":
        raise FangcunError(
            f"precision: fp8-mixed needs an NVIDIA GPU with float8 products (H100, RTX 40 or newer). {other}"
        )
    capability = torch.cuda.get_device_capability(device)
    if capability < FIRST_CAPABILITY:
        raise FangcunError(
            f"precision: fp8-mixed needs compute capability 8.9 (H100, RTX 40) or newer; this GPU has {capability[0]}.{capability[1]}. {other}"
        )
    if importlib.util.find_spec("torchao") is None:
        raise FangcunError(
            f"precision: fp8-mixed needs the package torchao, which is not installed. Run pip install torchao. {other}"
        )


def use_float8(model: Transformer, *, emulate: bool = False) -> int:
    """Let the linear layers of the blocks multiply in float8, in place; how many do.

    emulate: round as the hardware would, with products in float32: for tests on any device.
    """
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training  # pyrefly: ignore [missing-import]

    chosen = [
        module
        for module in model.blocks.modules()
        if isinstance(module, nn.Linear) and not (module.in_features % MULTIPLE or module.out_features % MULTIPLE)
    ]
    if not chosen:
        raise FangcunError(
            f"precision: fp8-mixed finds no linear layer whose sides are multiples of {MULTIPLE}. "
            "Change n_embd, head_size and intermediate_size, or use --precision bf16-mixed."
        )
    convert_to_float8_training(
        model,
        config=Float8LinearConfig(emulate=emulate),
        module_filter_fn=lambda module, name: any(module is one for one in chosen),
    )
    return len(chosen)
