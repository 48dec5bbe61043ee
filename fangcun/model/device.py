"""Which device a name means: one rule for training and for generation; and a GPU that torch cannot see is named."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from fangcun.errors import FangcunError

_EXPECTED = "Expected auto, cpu, cuda, cuda:N or mps."
_HIDING = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
_CUDA, _ROCM = "cu130", "rocm7.0"
"""Newest wheels that we know of; the page named beside them has the list of the day."""


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA (or ROCm) where torch sees a GPU, else Apple's GPU, else the CPU.

    Raises FangcunError for a device that is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise FangcunError(f"device: '{name}' is no device. {_EXPECTED}") from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise FangcunError(f"device: {name} is not supported by this version. {_EXPECTED}")
    if device.type == "mps" and not torch.backends.mps.is_available():
        why = "is built without it" if not torch.backends.mps.is_built() else "finds none (it needs macOS 14 or newer)"
        raise FangcunError(
            f"device: {name} is Apple's GPU, but torch {torch.__version__} {why}. Use --device auto or cpu."
        )
    if device.type == "cuda":
        if not torch.cuda.is_available():
            advice = unseen_gpu() or "Use --device cpu, or install a CUDA build of torch."
            raise FangcunError(f"device: {name} was asked for, but torch {torch.__version__} sees no GPU. {advice}")
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


def unseen_gpu() -> str:
    """What is wrong with a GPU that this machine has and torch does not see, and what to install; empty if there is none.

    Looks only for traces of a driver, and says nothing where GPUs are hidden on purpose (CUDA_VISIBLE_DEVICES).
    """
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        return ""
    if any(os.environ.get(name, "0").strip() in ("", "-1") for name in _HIDING):
        return ""
    version = torch.__version__
    if _has_nvidia():
        if torch.version.cuda is None:
            return f"This machine has an NVIDIA GPU, but torch {version} is a build without CUDA. {_install(_CUDA)}"
        return (
            f"This machine has an NVIDIA GPU, but torch {version} (for CUDA {torch.version.cuda}) cannot use it; most "
            "often the driver is older than that CUDA. The first lines of nvidia-smi name the newest CUDA that the driver "
            f"runs: update the driver, or take a torch for that CUDA. {_install(_CUDA)}"
        )
    if _has_amd() and torch.version.hip is None:
        return (
            f"This machine has an AMD GPU with the ROCm driver, but torch {version} is a build without ROCm. "
            f"Where ROCm supports that GPU: {_install(_ROCM)}"
        )
    return ""


def _install(wheel: str) -> str:
    return (
        f"Install another build: pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/{wheel} "
        f"(in China: --index-url https://mirrors.nju.edu.cn/pytorch/whl/{wheel}). Builds for other drivers than "
        f"{wheel}: https://pytorch.org/get-started/locally/."
    )


def _has_nvidia() -> bool:
    """A driver's own files; where there are none of them (WSL), nvidia-smi, which may also lie on a machine without a GPU."""
    if sys.platform == "win32":
        return (Path(os.environ.get("SYSTEMROOT", r"C:\Windows")) / "System32" / "nvcuda.dll").is_file()
    gpus = Path("/proc/driver/nvidia/gpus")
    if Path("/dev/nvidia0").exists() or (gpus.is_dir() and any(gpus.iterdir())):
        return True
    program = shutil.which("nvidia-smi")
    if program is None:
        return False
    try:
        listed = subprocess.run(
            [program, "-L"], capture_output=True, text=True, errors="replace", timeout=10, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return listed.returncode == 0 and "GPU 0" in listed.stdout


def _has_amd() -> bool:
    return sys.platform == "linux" and (Path("/dev/kfd").exists() or Path("/opt/rocm").is_dir())
