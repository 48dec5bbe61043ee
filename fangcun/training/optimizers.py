"""Which optimizer moves which parameter, and a proof that each parameter is moved by exactly one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from fangcun.config.schema import OptimizerConfig
from fangcun.model import Transformer, parameter_kinds
from fangcun.training.eight_bit import build_adamw8bit, check_torchao
from fangcun.training.muon import Muon

_DECAYED = ("matrix", "head")


def check_optimizer(config: OptimizerConfig) -> None:
    """Raise FangcunError for an optimizer that this installation lacks."""
    if config.name == "adamw8bit":
        check_torchao()


def build_optimizers(model: Transformer, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """AdamW (Loshchilov & Hutter 2017) over all of `model`, or Muon for the matrices between layers and AdamW for the rest.

    Norms, biases and embeddings (a tied head among them) are not decayed. Each group carries `name` and `lr_scale`, its
    share of the scheduled learning rate. Raises FangcunError for an optimizer that this installation lacks.
    """
    check_optimizer(config)
    optimizers: list[torch.optim.Optimizer] = []
    groups = parameter_groups(model, config)
    muon = [g for g in groups if g["name"].startswith("matrix")] if config.name == "muon" else []
    if muon:
        optimizers.append(
            Muon(
                muon,
                lr=config.lr,
                weight_decay=config.weight_decay,
                momentum=config.muon_momentum,
                scale=config.muon_scale,
                steps=config.muon_steps,
            )
        )
    if config.name == "adamw8bit":
        optimizers.append(build_adamw8bit(groups, config))
        assert_each_parameter_once(model, optimizers)
        return optimizers
    # fused is several times the default loop on CPU too; it wants at least one parameter a group.
    optimizers.append(
        torch.optim.AdamW(
            [g for g in groups if not any(g is m for m in muon)],
            lr=config.lr,
            betas=tuple(config.betas),
            eps=config.eps,
            weight_decay=config.weight_decay,
            fused=True,
        )
    )
    assert_each_parameter_once(model, optimizers)
    return optimizers


def parameter_groups(model: Transformer, config: OptimizerConfig) -> list[dict[str, Any]]:
    """The parameters by kind, empty groups left out, each with its share of the learning rate and its decay.

    The matrix that makes queries, keys and values is as many matrices to Muon as it has heads, so it is a group of its own.
    """
    kinds = parameter_kinds(model)
    rates = {"embedding": config.embedding_lr, "head": config.head_lr}
    if config.name == "muon":
        rates["matrix"] = config.muon_lr
    members: dict[str, list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        kind = kinds[name]
        fused = config.name == "muon" and kind == "matrix" and name.endswith("attention.qkv.weight")
        members.setdefault("matrix qkv" if fused else kind, []).append(parameter)
    groups = []
    for name, parameters in members.items():
        kind = name.split()[0]
        group: dict[str, Any] = {
            "name": name,
            "params": parameters,
            "lr_scale": (rates.get(kind) or config.lr) / config.lr,
        }
        if kind not in _DECAYED:
            group["weight_decay"] = 0.0
        if name == "matrix qkv":
            group["part_rows"] = model.config.head_size
        groups.append(group)
    return groups


def assert_each_parameter_once(model: torch.nn.Module, optimizers: Iterable[torch.optim.Optimizer]) -> None:
    """Every trainable parameter is in exactly one group of exactly one optimizer. Raises AssertionError naming offenders."""
    seen: dict[int, int] = {}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                seen[id(parameter)] = seen.get(id(parameter), 0) + 1
    wrong = {n: seen.get(id(p), 0) for n, p in model.named_parameters() if p.requires_grad and seen.get(id(p), 0) != 1}
    assert not wrong, f"parameters not in exactly one optimizer group (name: times): {wrong}"


def set_learning_rate(optimizers: Iterable[torch.optim.Optimizer], rate: float) -> None:
    """Give every group its share (`lr_scale`) of the rate of this step."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if torch.is_tensor(group["lr"]):  # torchao compiles its step, and a number would be compiled in
                group["lr"].fill_(rate * group["lr_scale"])
            else:
                group["lr"] = rate * group["lr_scale"]
