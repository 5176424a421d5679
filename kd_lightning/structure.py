"""Structures of tensors: what inputs, targets and outputs may be made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """A structure of mappings, sequences, named tuples and dataclasses with its leaves changed; texts count as one leaf."""
    if isinstance(value, Mapping):
        return {key: mapped(item, change) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(mapped(item, change) for item in value))
    if isinstance(value, (list, tuple)) and not (value and isinstance(value[0], str)):
        return type(value)(mapped(item, change) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: mapped(getattr(value, f.name), change) for f in fields(value)})
    return change(value)
