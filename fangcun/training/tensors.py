"""Telling sharded tensors (DTensor) apart, without importing their class: that takes 0.7 s, which most runs need not wait."""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor


def is_sharded(tensor: Tensor) -> bool:
    """Whether `tensor` is a DTensor."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Any) -> Tensor:
    """This rank's part of a sharded tensor; any other as it is."""
    return tensor.to_local() if is_sharded(tensor) else tensor
