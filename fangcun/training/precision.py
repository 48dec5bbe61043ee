"""Device, arithmetic and compilation: chosen by what the device can do, never by timing it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
from dataclasses import dataclass

import torch

from fangcun.config.schema import Precision, Recipe
from fangcun.errors import FangcunError
from fangcun.model.device import choose_device, cpu_computes_bf16
from fangcun.processes import available_cores
from fangcun.training.float8 import check_float8


@dataclass(frozen=True)
class Compute:
    """What `choose_compute` decided: all concrete, nothing left at auto."""

    device: torch.device
    precision: Precision
    compile: bool
    num_threads: int

    def autocast(self) -> contextlib.AbstractContextManager:
        """The context in which forward passes run."""
        if self.precision in ("32-true", "bf16-true"):
            return contextlib.nullcontext()
        dtype = torch.float16 if self.precision == "16-mixed" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype)


def default_threads() -> int:
    """OMP_NUM_THREADS where it is set, else the cores that this process may use."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdecimal() and int(wanted) else available_cores()


def can_compile(device: torch.device) -> str:
    """Why torch.compile cannot work on `device`, or an empty string when nothing speaks against it."""
    if device.type == "mps":
        return "this version does not compile for mps (Apple's GPU)"
    if all(shutil.which(name) is None for name in ("cc", "gcc", "clang", "cl", os.environ.get("CXX") or "g++")):
        return "no C compiler was found"
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            return "triton is not installed"
        if torch.cuda.get_device_capability(device) < (7, 0):
            return "the GPU is older than triton's oldest (compute capability 7.0)"
    return ""


def choose_compute(recipe: Recipe) -> Compute:
    """Turn the recipe's device, precision, compile and thread count into concrete choices. Raises FangcunError."""
    device = choose_device(recipe.device)
    precision = recipe.precision
    if precision == "auto":
        native = {
            "cuda": lambda: torch.cuda.is_bf16_supported(including_emulation=False),
            "cpu": cpu_computes_bf16,
        }.get(device.type, lambda: False)()
        precision = "bf16-mixed" if native else "32-true"
    if precision == "16-mixed" and device.type == "cpu":
        raise FangcunError(
            "precision: 16-mixed needs a GPU. On the CPU use --precision bf16-mixed or 32-true; a run that began with "
            "16-mixed goes on with a GPU only (else begin another with --out NEW)."
        )
    if precision == "fp8-mixed":
        check_float8(device)
    if device.type == "mps" and precision != "32-true":
        raise FangcunError(
            f"precision: {precision} is not supported on mps (Apple's GPU). Use --precision 32-true (or --device cpu)."
        )
    compiled = recipe.compile
    if compiled == "auto":
        compiled = device.type == "cuda" and not can_compile(device)
    elif compiled and (why := can_compile(device)):
        raise FangcunError(f"compile: true cannot work here: {why}. Use --compile false.")
    return Compute(device, precision, bool(compiled), recipe.train.num_threads or default_threads())
