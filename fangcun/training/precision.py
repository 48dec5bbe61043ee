"""Device, arithmetic and compilation: chosen by what the device can do, never by timing it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from dataclasses import dataclass

import torch

from fangcun.config.schema import Precision, Recipe
from fangcun.errors import FangcunError


@dataclass(frozen=True)
class Compute:
    """What `choose_compute` decided: all concrete, nothing left at auto."""

    device: torch.device
    precision: Precision
    compile: bool
    num_threads: int

    def autocast(self) -> contextlib.AbstractContextManager:
        """The context in which forward passes run."""
        if self.precision == "32-true":
            return contextlib.nullcontext()
        dtype = torch.bfloat16 if self.precision == "bf16-mixed" else torch.float16
        return torch.autocast(self.device.type, dtype=dtype)


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA when torch sees a GPU, else the CPU. Raises FangcunError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
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


def cpu_computes_bf16() -> bool:
    """Whether this CPU has bf16 instructions (AVX-512 BF16, AMX, or Arm's); without them bf16 is emulated and slow."""
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is not None:
        found = capabilities()
        return any(bool(found.get(key)) for key in ("avx512_bf16", "amx_bf16", "bf16"))
    return bool(torch.cpu._is_avx512_bf16_supported())


def available_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def choose_compute(recipe: Recipe) -> Compute:
    """Turn the recipe's device, precision, compile and thread count into concrete choices. Raises FangcunError."""
    device = choose_device(recipe.device)
    precision = recipe.precision
    if precision == "auto":
        native = (
            torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda" else cpu_computes_bf16()
        )
        precision = "bf16-mixed" if native else "32-true"
    if precision == "16-mixed" and device.type == "cpu":
        raise FangcunError("precision: 16-mixed needs a GPU. On the CPU use --precision bf16-mixed, or 32-true.")
    compiled = recipe.compile
    has_triton = importlib.util.find_spec("triton") is not None
    if compiled == "auto":
        compiled = device.type == "cuda" and has_triton
    elif compiled and device.type == "cuda" and not has_triton:
        raise FangcunError("compile: true needs triton, which is not installed here. Use --compile false.")
    return Compute(device, precision, bool(compiled), recipe.train.num_threads or available_cores())
