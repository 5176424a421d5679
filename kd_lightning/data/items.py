"""What an item of a user's data set is made of: inputs and a target, whatever structure holds them.

=====================================  ==========================================  ==================================
an item is                             target                                      inputs
=====================================  ==========================================  ==================================
a mapping, dataclass, named tuple      ``target``, ``label``, ``labels`` or ``y``  the other fields; one alone as it is
a tuple or list of two or more         the last element                            the other elements, likewise
a tuple or list of one                 none                                        its element
a tensor, an array, a number, a text   none                                        itself
=====================================  ==========================================  ==================================

``data.target`` names the field, or the element by its position, that is the target (``none``: there is none), and
``data.inputs`` those that are the models' inputs.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from kd_lightning.batch import TARGET_NAMES
from kd_lightning.data.content import code_digest
from kd_lightning.errors import UserError

NO_TARGET = "none"
NO_TARGET_NOTE = "no target among"

Field = str | int


class UnequalShapes(ValueError):
    """Samples that cannot be stacked. ``position``: of the first one, in the batch, that is unlike the one before."""

    def __init__(self, position: int, shape: tuple[int, ...], others: tuple[int, ...]) -> None:
        super().__init__(
            f"has the shape {shape}, others have {others}: bring them to one size in the data set, or make batches with "
            "data.collate_fn"
        )
        self.position = position


class ItemForm:
    """How items are taken apart and put together to batches.

    Args:
        target: which field is the target; None: as in the table above; "none": there is none.
        inputs: which fields are inputs; None: all but the target.
        collate_fn: makes a batch of a list of items, in the items' own form; None: tensors, arrays and numbers are
            stacked, texts stay a list.
        key: config key of the data, for messages.
    """

    def __init__(
        self,
        target: Field | None = None,
        inputs: Sequence[Field] | Field | None = None,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        key: str = "data",
    ) -> None:
        self.target, self.collate_fn, self.key = target, collate_fn, key
        self.inputs = None if inputs is None else [inputs] if isinstance(inputs, (str, int)) else list(inputs)
        self._one_at_a_time = threading.Lock()  # a collate function is the user's: it may keep state

    def split(self, item: Any) -> tuple[Any, Any]:
        """``(inputs, target)`` of an item, or of a batch of the same form; the target may be None."""
        fields = fields_of(item)
        if fields is None:
            if self.target not in (None, NO_TARGET):
                raise UserError(f"{self.key}.target={self.target}: items are no structure but {type(item).__name__}")
            return item, None
        target = self.target_field(fields)
        chosen = [name for name in fields if name != target] if self.inputs is None else list(self.inputs)
        for name in chosen:
            self._require(name, fields, "inputs")
        if not chosen:
            raise UserError(f"{self.key}: an item has no field beside its target {target!r}: nothing is left as input")
        values = [fields[name] for name in chosen]
        if len(values) == 1:
            inputs = values[0]
        else:
            inputs = dict(zip(chosen, values, strict=True)) if _has_names(item) else tuple(values)
        return inputs, None if target is None else fields[target]

    def target_field(self, fields: Mapping[Field, Any]) -> Field | None:
        """Which of an item's fields is the target; None where there is none."""
        if self.target == NO_TARGET:
            return None
        if self.target is not None:
            self._require(self.target, fields, "target")
            return self.target
        named = [name for name in TARGET_NAMES if name in fields]
        if named:
            return named[0]
        positions = [name for name in fields if isinstance(name, int)]
        return positions[-1] if len(positions) > 1 else None

    def batch(self, items: list[Any]) -> tuple[Any, Any]:
        """Inputs and targets of some items; targets are None where there are none."""
        if self.collate_fn is not None:
            with self._one_at_a_time:
                return self.split(self.collate_fn(items))
        pairs = [self.split(item) for item in items]
        return collate([inputs for inputs, _ in pairs]), collate_targets([target for _, target in pairs])

    def settings(self) -> dict[str, Any]:
        """What the inputs depend on beside the items, as plain values."""
        collate = None if self.collate_fn is None else code_digest(self.collate_fn)
        return {"target": self.target, "inputs": self.inputs, "collate_fn": collate}

    def said(self, item: Any) -> str | None:
        """Words on where the target was found, if that is not obvious."""
        fields = fields_of(item)
        if fields is None or self.target is not None:
            return None
        target = self.target_field(fields)
        if target is None and _has_names(item):
            return f"{NO_TARGET_NOTE} {', '.join(map(str, fields))} ({self.key}.target names it)"
        return (
            f"target is element {target + 1} of {len(fields)}" if isinstance(target, int) and len(fields) > 2 else None
        )

    def _require(self, name: Field, fields: Mapping[Field, Any], what: str) -> None:
        if name not in fields:
            raise UserError(
                f"{self.key}.{what}={name}: an item has no such field, it has {', '.join(map(str, fields))}"
            )


def fields_of(item: Any) -> dict[Field, Any] | None:
    """A structure's parts by name or position; None for what is no structure."""
    if isinstance(item, Mapping):
        return dict(item)
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        return {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}
    if isinstance(item, tuple) and _has_names(item):
        return dict(zip(item._fields, item, strict=True))  # type: ignore[attr-defined]
    if isinstance(item, (tuple, list)) and not (isinstance(item, list) and _numbers(item)):
        return dict(enumerate(item))
    return None


def _has_names(item: Any) -> bool:
    return not isinstance(item, (tuple, list)) or bool(getattr(item, "_fields", None))


def _numbers(values: Sequence[Any]) -> bool:
    """A list of numbers is a vector."""
    return bool(values) and all(isinstance(value, (int, float)) for value in values)


def collate(values: list[Any]) -> Any:
    """Values of the same structure as one batch: tensors, arrays and numbers stacked, texts as a list."""
    first = values[0]
    if isinstance(first, str) or first is None:
        return values
    if isinstance(first, list) and _numbers(first):
        return default_collate([torch.tensor(value) for value in values])
    fields = fields_of(first)
    if fields is not None:
        parts = [fields_of(value) for value in values]
        columns = {name: collate([part[name] for part in parts if part is not None]) for name in fields}
        return columns if _has_names(first) else tuple(columns.values())
    if isinstance(first, (Tensor, np.ndarray)):
        odd = next((k for k, value in enumerate(values) if tuple(value.shape) != tuple(first.shape)), None)
        if odd is not None:
            raise UnequalShapes(odd, tuple(values[odd].shape), tuple(first.shape))
        if isinstance(first, Tensor):
            return torch.stack([value.detach() for value in values])
    if isinstance(first, (np.ndarray, np.generic, int, float, complex)):
        return default_collate(values)
    raise TypeError(
        f"expected tensors, arrays, numbers and texts, got {type(first).__module__}.{type(first).__name__}"
        + (
            ": turn pictures into tensors in the data set, with torchvision.transforms.ToTensor()"
            if type(first).__module__.startswith("PIL.")
            else ""
        )
    )


def collate_targets(targets: list[Any]) -> Any:
    """The same for targets: a tensor, a list of texts, or None where no sample has one.

    A target that is missing here and there (None, nan) is left to :mod:`~kd_lightning.data.labels`: the list is returned.
    """
    if all(target is None for target in targets):
        return None
    if any(target is None or isinstance(target, str) for target in targets):
        return targets
    return collate(targets)
