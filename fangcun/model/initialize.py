"""Initial weights by name: the same at every world size, order of parameters and precision."""

from __future__ import annotations

import hashlib
import math
from typing import Literal

import torch

from fangcun.config.schema import InitConfig
from fangcun.model.norm import LayerNorm, RMSNorm
from fangcun.model.transformer import Transformer

Kind = Literal["matrix", "embedding", "norm", "bias", "head"]

STANDARD_DEVIATION = 0.02
_WRITERS = ("attention.output.weight", "mlp.down.weight")
"""The matrices that write to the residual stream."""


def parameter_kinds(model: Transformer) -> dict[str, Kind]:
    """What each parameter is, by name, in the order of `model.named_parameters()`.

    matrix: a weight between layers; embedding: the token table (tied or not), learned positions, runs of ids; norm: weights and
    biases of norms; bias: of a linear layer; head: the output matrix where it is not the embedding.
    """
    norms = {name for name, module in model.named_modules() if isinstance(module, RMSNorm | LayerNorm)}
    kinds: dict[str, Kind] = {}
    for name, _ in model.named_parameters():
        module, _, last = name.rpartition(".")
        if module in norms:
            kinds[name] = "norm"
        elif module in ("embedding", "positions", "ngrams.table"):
            kinds[name] = "embedding"
        elif module == "head":
            kinds[name] = "head"
        else:
            kinds[name] = "bias" if last == "bias" else "matrix"
    return kinds


@torch.no_grad()
def initialize(model: Transformer, seed: int, init: InitConfig | None = None) -> None:
    """Fill every parameter in place, by default as GPT-2 does (Radford et al. 2019).

    Weights are normal with standard deviation 0.02; the two matrices a block that write to the residual stream are scaled
    by 1 / sqrt(2 n_layer); biases are 0, norm weights 1. `init` changes the deviations. Each parameter is drawn on CPU in
    float32 from a generator seeded by (seed, its name), padded rows of the vocabulary included.
    """
    init = init or InitConfig()
    kinds = parameter_kinds(model)
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            parameter.zero_()
        elif kinds[name] == "norm":
            parameter.fill_(1.0)
        else:
            deviation = _deviation(name, kinds[name], parameter.shape[1], model.config.n_layer, init)
            drawn = torch.zeros(parameter.shape, dtype=torch.float32, device="cpu")
            if deviation:
                drawn.normal_(0.0, deviation, generator=_generator(seed, name))
            parameter.copy_(drawn)


def _deviation(name: str, kind: Kind, columns: int, n_layer: int, init: InitConfig) -> float:
    """Standard deviation of a weight; 0 for one that starts at 0."""
    if name.startswith("ngrams."):
        return 0.0  # a run that was never seen adds nothing
    if kind == "embedding":
        return init.embedding_std
    if kind == "head":
        return 0.0 if init.zero_head else STANDARD_DEVIATION
    deviation = 1 / math.sqrt(columns) if init.matrices == "fan_in" else STANDARD_DEVIATION
    if name.endswith(_WRITERS):
        return 0.0 if init.zero_residual else deviation / math.sqrt(2 * n_layer)
    return deviation


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator(device="cpu").manual_seed(int.from_bytes(digest[:8], "big") >> 1)
