"""All targets of a user's data set, from what it keeps beside its items or from the items themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from kd_lightning.data.items import ItemForm, collate_targets

_PROBED_LABELS = 256  # so many different labels are compared with items that have them
_DENSE_BYTES = 64 << 20  # of masks and the like; of larger ones evenly spread samples are looked at

Reader = Callable[[int], Any]


def read_targets(dataset: Any, form: ItemForm, read: Reader, rows: int) -> tuple[Any, bool]:
    """All raw targets, and whether these are of all samples.

    From the data set's ``targets``, ``labels`` or ``tensors`` if they agree with items: the first, the middle and the
    last one, and one of each label (a data set may transform what it keeps). Otherwise every item is read once; of large
    masks, evenly spread ones.

    Args:
        dataset: a map-style data set.
        form: how its items are taken apart.
        read: reads an item.
        rows: its length.
    """
    for kept in _kept(dataset, rows):
        if all(_same(kept[i], form.split(read(i))[1]) for i in _probed(kept, rows)):
            return kept, True
    first = form.split(read(0))[1]
    chosen = range(rows)
    if isinstance(first, (Tensor, np.ndarray)) and first.ndim > 1:
        step = -(-rows * torch.as_tensor(first).nbytes // _DENSE_BYTES)
        chosen = range(0, rows, max(1, step))
    return collate_targets([form.split(read(i))[1] for i in chosen]), len(chosen) == rows


def kept_targets(dataset: Any, form: ItemForm, read: Reader, rows: int) -> Any:
    """Raw targets of all samples where the data set keeps them beside its items, as :func:`read_targets`; None otherwise."""
    for kept in _kept(dataset, rows):
        if all(_same(kept[i], form.split(read(i))[1]) for i in (0, rows - 1)):
            return kept
    return None


def _kept(dataset: Any, rows: int) -> list[Any]:
    """What a data set keeps that may be its targets: tensors and lists of as many numbers or texts as it has items."""
    candidates = [getattr(dataset, name, None) for name in ("targets", "labels")]
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) > 1:
        candidates.append(dataset.tensors[-1])
    return [column for column in map(_column, candidates) if column is not None and len(column) == rows]


def _column(kept: Any) -> Any:
    """A tensor or a list of texts; None for anything else."""
    if isinstance(kept, Tensor):
        return kept if kept.dim() else None
    if kept is None or isinstance(kept, (str, bytes)) or callable(kept):
        return None
    try:
        values = np.asarray(kept)
        if values.ndim == 0:
            return None
        if values.dtype == object or values.dtype.kind in "US":
            values = np.asarray(values.tolist())
        if values.dtype.kind in "US" and values.ndim == 1:
            return [str(value) for value in values]
        return torch.from_numpy(np.array(values)) if values.dtype.kind in "biuf" else None
    except (TypeError, ValueError):  # ragged lists, objects
        return None


def _probed(kept: Any, rows: int) -> list[int]:
    probed = {0, rows // 2, rows - 1}
    if isinstance(kept, list) or kept.dim() == 1:
        first: dict[Any, int] = {}
        for row, label in enumerate(kept if isinstance(kept, list) else kept.tolist()):
            first.setdefault(label, row)
            if len(first) > _PROBED_LABELS:
                break
        probed |= set(first.values())
    return sorted(probed)


def _same(kept: Any, item: Any) -> bool:
    if isinstance(kept, str) or isinstance(item, str) or item is None:
        return isinstance(kept, str) and isinstance(item, str) and kept == item  # numpy's texts are texts
    try:
        own = torch.as_tensor(item)
    except (TypeError, ValueError, RuntimeError):
        return False
    return own.numel() == kept.numel() and bool((own.reshape(kept.shape).to(kept.dtype) == kept).all())
