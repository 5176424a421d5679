"""Weights in safetensors' format, read without the package of that name: a length, a JSON header, the tensors' bytes."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

_TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors by name.

    Raises:
        ValueError: the file is none, or not whole.
    """
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > len(content) - 8:
        raise ValueError("is no safetensors file, or is cut off")
    header = json.loads(content[8 : 8 + length])
    data = content[8 + length :]
    found = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        kind, shape = _TYPES[entry["dtype"]], entry["shape"]
        if not 0 <= start <= end <= len(data) or (end - start) != kind.itemsize * torch.Size(shape).numel():
            raise ValueError(f"{name} is cut off")
        flat = torch.frombuffer(bytearray(data[start:end]), dtype=kind) if end > start else torch.empty(0, dtype=kind)
        found[name] = flat.reshape(shape)
    return found
