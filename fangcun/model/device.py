"""Which device a name means: one rule for training and for generation."""

from __future__ import annotations

import torch

from fangcun.errors import FangcunError


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA when torch sees a GPU, else the CPU. Raises FangcunError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise FangcunError(f"device: '{name}' is no device. Expected auto, cpu, cuda or cuda:N.") from None
    if device.type not in ("cpu", "cuda"):
        raise FangcunError(f"device: {name} is not supported by this version. Expected auto, cpu, cuda or cuda:N.")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise FangcunError(
                f"device: {name} was asked for, but torch {torch.__version__} sees no GPU. "
                "Use --device cpu, or install a CUDA build of torch."
            )
        if (device.index or 0) >= torch.cuda.device_count():
            raise FangcunError(f"device: {name} does not exist; torch sees {torch.cuda.device_count()} GPU(s).")
    return device
