"""The optimizers' state as named tensors, whole or sharded, so that it can be stored without pickle and put back.

An entry is called `<parameter>::<entry>`, as in `blocks.0.mlp.up.weight::exp_avg`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fangcun.errors import FangcunError
from fangcun.model import read_tensors
from fangcun.training.eight_bit import join_parts, plain_parts
from fangcun.training.tensors import is_sharded

WHOLE_FILE = "optimizer.safetensors"
SHARDS_FOLDER = "optimizer"


def optimizer_entries(model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """The state as it lies in memory: no copies, on its device, DTensors where the parameters are."""
    names = {id(p): n for n, p in model.named_parameters()}
    result = {}
    for optimizer in optimizers:
        for parameter, state in optimizer.state.items():
            for entry, value in state.items():
                for part, tensor in plain_parts(entry, value).items():
                    result[f"{names[id(parameter)]}::{part}"] = tensor.detach()
    return result


def optimizer_tensors(
    model: nn.Module, optimizers: list[torch.optim.Optimizer], *, copy: bool = False
) -> dict[str, Tensor]:
    """The state on the CPU, for safetensors. copy: nothing is shared with the optimizers, which may step on."""
    entries = optimizer_entries(model, optimizers)
    return {name: tensor.to("cpu", copy=copy).contiguous() for name, tensor in entries.items()}


def restore_optimizers(model: nn.Module, optimizers: list[torch.optim.Optimizer], tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave. Raises FangcunError when the entries do not fit the model."""
    state: dict[str, dict[str, Tensor]] = {}
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
                optimizer.state[parameter] = join_parts({k: placed_like(t, parameter) for k, t in entries.items()})
    if state:
        raise FangcunError(f"the checkpoint has optimizer state for parameters this model lacks: {sorted(state)[:5]}")


def placed_like(tensor: Tensor, parameter: Any) -> Tensor:
    """A copy of `tensor` on the device of `parameter`; this rank's shard of it where that one is sharded."""
    if is_sharded(tensor):
        return tensor
    if is_sharded(parameter) and tensor.shape == parameter.shape:
        from torch.distributed.tensor import distribute_tensor

        # Every rank has the whole: each cuts out its own part, without a word to the others.
        moved = tensor.to(parameter.device)
        return distribute_tensor(moved, parameter.device_mesh, parameter.placements, src_data_rank=None)
    # Copied, for the file that the tensors are mapped to may go away.
    return tensor.to(parameter.device, copy=True)


def read_optimizer_state(folder: Path, model: nn.Module) -> dict[str, Tensor]:
    """What lies in a checkpoint's training_state `folder`: one file, or the shards of any number of ranks.

    Sharded entries come back sharded as `model` is now. All ranks call it together. Raises FangcunError.
    """
    if (folder / WHOLE_FILE).is_file() or not (folder / SHARDS_FOLDER).is_dir():
        return read_tensors(folder / WHOLE_FILE)
    import torch.distributed as dist
    import torch.distributed.checkpoint as dcp

    reader = dcp.HuggingFaceStorageReader(str(folder / SHARDS_FOLDER))
    wanted: dict[str, Any] = {}
    parameters = dict(model.named_parameters())
    for key, stored in reader.read_metadata().state_dict_metadata.items():
        name, _ = key.rsplit("::", 1)
        parameter = parameters.get(name)
        if parameter is None:
            raise FangcunError(
                f"{folder} has optimizer state for {name}, which this model lacks: it is of another model."
            )
        kind = stored.properties.dtype  # type: ignore[union-attr]
        alike = stored.size == parameter.shape  # type: ignore[union-attr]
        wanted[key] = (
            torch.zeros_like(parameter.detach(), dtype=kind)
            if alike
            else torch.zeros(stored.size, dtype=kind, device=parameter.device)  # type: ignore[union-attr]
        )
    try:
        dcp.load(wanted, storage_reader=reader, no_dist=not dist.is_initialized())
    except (OSError, ValueError, KeyError, dcp.CheckpointException) as error:
        raise FangcunError(f"{folder / SHARDS_FOLDER} cannot be read ({error}). Use another checkpoint.") from error
    return wanted
