"""Checkpoints that are pickles, opened as data alone: tensors and plain values, never anything that would run code."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fangcun.errors import FangcunError

_AGAIN = "Copy or fetch it again."
_CULPRIT = re.compile(r"GLOBAL ([\w.]+)")


def open_pickle(file: Path, *, remedy: str) -> Any:
    """The content of a file of `torch.save`, its tensors on the CPU and mapped where the format allows.

    Opened with `weights_only=True` and in no other way: what holds more than tensors and plain values raises
    FangcunError, with `remedy` as its last sentence. So does a damaged file, without it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about other protocols of pickle, which are no news to the user
            return torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file) or None)
    except pickle.UnpicklingError as error:
        culprit = _CULPRIT.search(str(error))
        if culprit is None and "weights_only" not in str(error).lower():
            raise FangcunError(
                f"{file} is damaged or no file of torch.save ({_first_line(error)}). {_AGAIN}"
            ) from error
        named = f" ({culprit.group(1)})" if culprit else ""
        raise FangcunError(
            f"{file} holds objects beside tensors and plain values{named}; to build them, code from the file would run, which is never done here. {remedy}"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # torch's reader raises whatever damaged bytes lead it to
        raise FangcunError(
            f"{file} is damaged, incomplete or no file of torch.save ({_first_line(error)}). {_AGAIN}"
        ) from error


def as_state(found: Any, file: Path) -> dict[str, torch.Tensor]:
    """A state dict out of what was opened, without the prefixes of torch.compile and DDP. Raises FangcunError."""
    if not isinstance(found, Mapping) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in found.items()
    ):
        raise FangcunError(f"{file}: expected weights (names and tensors), found a {type(found).__name__}.")
    state = {}
    for name, tensor in found.items():
        for prefix in ("_orig_mod.", "module.", "_forward_module."):
            name = name.removeprefix(prefix)
        if name in state:
            raise FangcunError(f"{file} holds {name} twice.")
        state[name] = tensor
    return state


def common_dtype(state: Mapping[str, torch.Tensor]) -> torch.dtype:
    """The type that all tensors have, where it is bfloat16 or float16; else float32."""
    kinds = {tensor.dtype for tensor in state.values() if tensor.is_floating_point()}
    return kinds.pop() if len(kinds) == 1 and kinds <= {torch.bfloat16, torch.float16} else torch.float32


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200] or type(error).__name__
