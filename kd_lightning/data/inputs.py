"""Inputs of a user's data set in a type that models compute with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

INPUT_TYPES = {"float32": torch.float32, "int64": torch.int64}


class Inputs:
    """Casts a batch's inputs: always the same way, decided by the first sample.

    float64 and float16 become float32, true/false as well; short whole numbers become int64, as embeddings take them.
    Bytes that are a picture (uint8 of shape (C, H, W) or (H, W, C)) become float32 in [0, 1], channels first, as
    torchvision's ToTensor makes them; other bytes become float32 as they are.

    Args:
        example: the inputs of the first sample.
        input_type: "float32" or "int64" casts single-tensor inputs to it; None: as above.
    """

    def __init__(self, example: Any, input_type: str | None = None) -> None:
        self.input_type = input_type
        self.notes: list[str] = []
        tensor = example if isinstance(example, Tensor) else None
        self.is_picture = (
            input_type is None and tensor is not None and tensor.dtype is torch.uint8 and tensor.dim() == 3
            and (tensor.shape[0] in (1, 3, 4) or tensor.shape[-1] in (1, 3, 4))
        )  # fmt: skip
        self.channels_last = self.is_picture and tensor is not None and tensor.shape[0] not in (1, 3, 4)
        if self.is_picture:
            self.notes.append(f"bytes become float32 in [0, 1]{', channels first' if self.channels_last else ''}")
        elif tensor is not None and tensor.dim() == 3 and tensor.shape[-1] in (1, 3, 4) and tensor.shape[0] > 4:
            form = " x ".join(map(str, tensor.shape))
            self.notes.append(f"{form} looks like a picture with channels last, models take them first")
        if not self.is_picture and tensor is not None and self._wanted(tensor.dtype) not in (tensor.dtype, None):
            kinds = [str(kind).removeprefix("torch.") for kind in (tensor.dtype, self._wanted(tensor.dtype))]
            self.notes.append(f"inputs {kinds[0]} become {kinds[1]}")

    def cast(self, inputs: Any) -> Any:
        """Inputs (N, ...), or a structure of them."""
        if not isinstance(inputs, Tensor):
            return _floats(inputs)
        if self.is_picture and inputs.dtype is torch.uint8:
            if self.channels_last:
                inputs = inputs.permute(0, 3, 1, 2)
            return inputs.to(torch.float32, memory_format=torch.contiguous_format) / 255
        wanted = self._wanted(inputs.dtype)
        return inputs if wanted is None else inputs.to(wanted)

    def _wanted(self, dtype: torch.dtype) -> torch.dtype | None:
        if self.input_type is not None:
            return INPUT_TYPES[self.input_type]
        if dtype in (torch.float64, torch.float16, torch.bfloat16, torch.bool, torch.uint8):
            return torch.float32
        return torch.int64 if dtype in (torch.int8, torch.int16, torch.int32) else None


def _floats(inputs: Any) -> Any:
    """A structure with its floats in float32; whole numbers (token numbers, masks) and texts stay."""
    if isinstance(inputs, Tensor):
        return inputs.to(torch.float32) if inputs.is_floating_point() else inputs
    if isinstance(inputs, Mapping):
        return {key: _floats(value) for key, value in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(_floats(value) for value in inputs)
    return inputs
