"""Batches as structures of tensors: their slices, their size, and copies in pinned memory (asynchronous to CUDA)."""

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


def part(batch: Any, start: int, end: int) -> Any:
    """Samples ``start:end`` of a structure of tensors."""
    if isinstance(batch, dict):
        return {key: part(value, start, end) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(part(value, start, end) for value in batch))
    if isinstance(batch, (list, tuple)) and any(isinstance(value, (Tensor, dict, list, tuple)) for value in batch):
        return type(batch)(part(value, start, end) for value in batch)
    return batch[start:end]


def size_of(batch: Any) -> int:
    """Bytes of all tensors in a structure."""
    if isinstance(batch, Tensor):
        return batch.nbytes
    if isinstance(batch, dict):
        batch = list(batch.values())
    return sum(map(size_of, batch)) if isinstance(batch, (list, tuple)) else 0
