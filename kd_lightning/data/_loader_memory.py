"""Pinned memory for a finished batch, so that its copy to a CUDA device is asynchronous."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def pinned(batch: Any) -> Any:
    """A structure of tensors with every tensor in pinned memory; other leaves unchanged."""
    if isinstance(batch, Tensor):
        return batch.pin_memory()
    if isinstance(batch, dict):
        return {key: pinned(value) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(pinned(value) for value in batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(pinned(value) for value in batch)
    return batch
