"""Batches as structures of tensors: their slices, their size, and copies in pinned memory (asynchronous to CUDA)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def pinned(batch: Any) -> Any:
    """A structure of tensors with every tensor in pinned memory; other leaves unchanged."""
    if isinstance(batch, Tensor):
        return batch.pin_memory() if batch.device.type == "cpu" else batch  # on a device already
    if isinstance(batch, dict):
        return {key: pinned(value) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(pinned(value) for value in batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(pinned(value) for value in batch)
    return batch


def split(batch: Any, sizes: list[int]) -> list:
    """A structure of tensors cut into consecutive runs of samples; the runs share its memory."""
    if isinstance(batch, Tensor):
        return list(batch.split(sizes))
    if isinstance(batch, dict):
        columns = {key: split(value, sizes) for key, value in batch.items()}
        return [{key: column[k] for key, column in columns.items()} for k in range(len(sizes))]
    rows = zip(*(split(value, sizes) for value in batch), strict=True)
    return [type(batch)(*row) if hasattr(batch, "_fields") else type(batch)(row) for row in rows]


def size_of(batch: Any) -> int:
    """Bytes of all tensors in a structure."""
    if isinstance(batch, Tensor):
        return batch.nbytes
    if isinstance(batch, dict):
        batch = list(batch.values())
    return sum(map(size_of, batch)) if isinstance(batch, (list, tuple)) else 0


def first(batch: Any) -> Any:
    """The first sample of a structure of tensors; other leaves unchanged."""
    if isinstance(batch, Tensor):
        return batch[0] if batch.dim() else batch
    if isinstance(batch, dict):
        return {key: first(value) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(first(value) for value in batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(first(value) for value in batch)
    return batch


def joined(parts: list) -> Any:
    """Structures of tensors put behind each other: what :func:`split` undoes."""
    head = parts[0]
    if isinstance(head, Tensor):
        return torch.cat(parts)
    if isinstance(head, dict):
        return {key: joined([part[key] for part in parts]) for key in head}
    if isinstance(head, (list, tuple)):
        columns = (joined(list(column)) for column in zip(*parts, strict=True))
        return type(head)(*columns) if hasattr(head, "_fields") else type(head)(columns)
    return head
