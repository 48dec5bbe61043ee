"""Which optimizer moves which parameter, and a proof that each parameter is moved by exactly one."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from fangcun.config.schema import OptimizerConfig
from fangcun.errors import FangcunError
from fangcun.model import Transformer, parameter_kinds

_DECAYED = ("matrix", "head")


def check_optimizer(config: OptimizerConfig) -> None:
    """Raise FangcunError for an optimizer that this version lacks."""
    if config.name != "adamw":
        raise FangcunError(
            f"optimizer.name: {config.name} is not in this version, expected 'adamw'. Run with --optimizer.name adamw."
        )


def build_optimizers(model: Transformer, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """AdamW (Loshchilov & Hutter 2017) over all of `model`; weight decay on the matrices alone.

    Norms, biases and embeddings (a tied head among them) are not decayed. Each group carries `name`. The result is a list, so that a
    second optimizer can take some of the groups. Raises FangcunError for an optimizer that this version lacks.
    """
    check_optimizer(config)
    kinds = parameter_kinds(model)
    named = dict(model.named_parameters())
    groups = [
        {"name": "decayed", "params": [p for n, p in named.items() if kinds[n] in _DECAYED]},
        {"name": "undecayed", "params": [p for n, p in named.items() if kinds[n] not in _DECAYED], "weight_decay": 0.0},
    ]
    # fused is several times the default loop on CPU too; it wants at least one parameter a group.
    adamw = torch.optim.AdamW(
        [g for g in groups if g["params"]],
        lr=config.lr,
        betas=tuple(config.betas),
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=True,
    )
    optimizers: list[torch.optim.Optimizer] = [adamw]
    assert_each_parameter_once(model, optimizers)
    return optimizers


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
    """Give every group the rate of this step."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate


def optimizer_tensors(model: torch.nn.Module, optimizers: list[torch.optim.Optimizer]) -> dict[str, torch.Tensor]:
    """The optimizers' state as one flat dictionary `<parameter>::<entry>`, for safetensors."""
    names = {id(p): n for n, p in model.named_parameters()}
    result = {}
    for optimizer in optimizers:
        for parameter, state in optimizer.state.items():
            for entry, value in state.items():
                tensor = value if torch.is_tensor(value) else torch.tensor(float(value))
                result[f"{names[id(parameter)]}::{entry}"] = tensor.detach().to("cpu").contiguous()
    return result


def restore_optimizers(
    model: torch.nn.Module, optimizers: list[torch.optim.Optimizer], tensors: dict[str, torch.Tensor]
) -> None:
    """Put back what `optimizer_tensors` gave. Raises FangcunError when the entries do not fit the model."""
    state: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        name, entry = key.rsplit("::", 1)
        state.setdefault(name, {})[entry] = tensor
    names = {id(p): n for n, p in model.named_parameters()}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                name = names[id(parameter)]
                entries = state.pop(name, None)
                if entries is None:
                    raise FangcunError(f"the checkpoint has no optimizer state for {name}: it is of another model.")
                # AdamW keeps `step` where the fused kernel wants it: on the parameter's device.
                # Copied, for the file that the tensors are mapped to may go away.
                optimizer.state[parameter] = {k: t.to(parameter.device, copy=True) for k, t in entries.items()}
    if state:
        raise FangcunError(f"the checkpoint has optimizer state for parameters this model lacks: {sorted(state)[:5]}")
