"""A batch to try things on: the data's example over and over, on a device, and in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kd_lightning.batch import Batch
from kd_lightning.structure import mapped


def repeated(example: Batch, samples: int) -> Batch:
    """A training batch of ``samples`` >= 1 samples: the example's, over and over."""
    rows = torch.arange(samples) % example.size

    def take(value: Any) -> Any:
        if isinstance(value, list) and value and isinstance(value[0], str):  # texts, one a sample
            return [value[row] for row in rows.tolist()]
        return value[rows] if isinstance(value, Tensor) and value.dim() else value

    return mapped(example, take)._replace(view=0, split="train")


def moved(value: Any, device: torch.device) -> Any:
    """The value with all its tensors on a device."""
    return mapped(value, lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf)


def described(value: Any) -> str:
    """Shapes and types, for messages."""
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {described(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__} of {', '.join(described(item) for item in value[:3])}"
    return type(value).__name__
