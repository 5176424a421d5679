"""A number for each input of a model, by which a stored answer knows whether it is asked about the same input.

Positions and views name the input that a loader makes. What happens to a batch afterwards (mixup in a callback, a
transform on the device, a data set that draws at random) they do not tell; the values do.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kd_lightning.batch import batch_size
from kd_lightning.teachers.samples import tensors_of

TOLERANCE = 1e-3  # of the larger mark: two devices add up in another order, by some 1e-6


def input_marks(inputs: Any) -> Tensor:
    """A weighted sum of each sample's values, float32 of shape (N,), on the CPU; 0 where inputs hold no tensors.

    The weights look random, so that a moved, mirrored or mixed picture has another mark, and their mean is 0, so that
    a mark is about as large as one value. Texts that are padded by batch have the mark of what is not padding.
    """
    marks = torch.zeros(batch_size(inputs))
    for number, tensor in enumerate(tensors_of(_unpadded(inputs))):
        values = tensor.detach().reshape(len(marks), -1).float()
        mark = values @ _weights(values.shape[1], number, values.device)
        if tensor.is_floating_point():
            marks = marks + (mark / max(values.shape[1], 1) ** 0.5).cpu()
        else:
            marks = marks + (mark / (values != 0).sum(1).clamp_min(1).sqrt()).cpu()
    return marks


@functools.lru_cache(maxsize=16)
def _weights(length: int, number: int, device: torch.device) -> Tensor:
    """The same for every batch of one kind, so they are made once: float32 of shape (length,)."""
    positions = torch.arange(length, device=device) + 7919 * number
    return ((positions * 2654435761) >> 8 & 0xFFFF).float() / 0x8000 - 1


def _unpadded(inputs: Any) -> Any:
    """Inputs by name with their padding at 0, wherever the batch ends."""
    mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
    if not isinstance(mask, Tensor):
        return inputs

    def cut(value: Any) -> Any:
        alike = isinstance(value, Tensor) and value.shape == mask.shape and not value.is_floating_point()
        return value * (mask != 0) if alike else value

    return {name: cut(value) for name, value in inputs.items()}


def same_inputs(marks: Tensor, stored: Tensor) -> Tensor:
    """Which samples are those whose marks were stored: bool of shape (N,)."""
    return (marks - stored).abs() <= TOLERANCE * (1 + torch.maximum(marks.abs(), stored.abs()))
