"""What a model needs to know of its data, as ``result.json`` keeps it: a run is opened again without the data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from kd_lightning.batch import Batch

SIZES = ("num_classes", "in_channels", "in_features", "image_size")
"""What a model's configuration may leave to the data, by the word "auto" or by not giving it."""


def sizes_of(datamodule: Any) -> dict[str, int]:
    """The sizes that the data have, by name."""
    found = {name: getattr(datamodule, name, None) for name in SIZES}
    return {name: int(value) for name, value in found.items() if value is not None}


def data_content(datamodule: Any, example: Batch) -> dict[str, Any]:
    """Sizes, names of the classes, how inputs were made from pixels, and what one sample's input looks like."""
    return {
        "sizes": sizes_of(datamodule),
        "class_names": _plain_list(getattr(datamodule, "class_names", None)),
        "mean": _plain_list(getattr(datamodule, "mean", None)),
        "std": _plain_list(getattr(datamodule, "std", None)),
        "scale": getattr(datamodule, "scale", None),
        "example": structure(example.inputs),
    }


def structure(inputs: Any) -> Any:
    """Inputs as plain values: a tensor (N, ...) becomes its ``{"shape": [...], "dtype": "float32"}`` without N."""
    if isinstance(inputs, Tensor):
        return {"shape": list(inputs.shape[1:]), "dtype": str(inputs.dtype).removeprefix("torch.")}
    if isinstance(inputs, Mapping):
        return {"fields": {str(name): structure(value) for name, value in inputs.items()}}
    if isinstance(inputs, (list, tuple)) and not all(isinstance(value, str) for value in inputs):
        return {"items": [structure(value) for value in inputs]}
    return {"type": type(inputs).__name__}


def _plain_list(values: Any) -> list[Any] | None:
    return None if values is None else [v.item() if hasattr(v, "item") else v for v in values]
