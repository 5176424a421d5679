"""Single samples of a batch, whatever structure its inputs have."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from kd_lightning.tensor_bytes import bytes_of


def tensors_of(inputs: Any) -> Iterator[Tensor]:
    """All tensors in a structure of inputs, in a fixed order."""
    if isinstance(inputs, Tensor):
        yield inputs
    elif isinstance(inputs, Mapping):
        for key in sorted(inputs, key=str):
            yield from tensors_of(inputs[key])
    elif isinstance(inputs, (list, tuple)):
        for value in inputs:
            yield from tensors_of(value)


def sample_digest(inputs: Any, position: int = 0) -> str:
    """Digest of one sample's values; tensors of shape (N, ...), other parts of the structure are left out."""
    digest = hashlib.blake2b(digest_size=16)
    for tensor in tensors_of(inputs):
        values = tensor[position : position + 1] if tensor.dim() else tensor
        digest.update(f"{tuple(values.shape)} {values.dtype} ".encode())
        digest.update(bytes_of(values).data)
    return digest.hexdigest()
