"""A tensor's values as bytes, for digests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def bytes_of(value: Tensor) -> Any:
    """The values in their order, as a numpy array of bytes; of any shape, stride and device. Of a tensor that is divided
    among processes: the share of this one."""
    local: Callable[[], Tensor] | None = getattr(value, "to_local", None)
    value = value if local is None else local()
    flat = value.detach().cpu().contiguous().reshape(-1)
    if flat.stride(0) != 1:  # of a single value, which counts as contiguous with any stride
        flat = flat.new_empty(flat.shape).copy_(flat)
    return flat.view(torch.uint8).numpy()
