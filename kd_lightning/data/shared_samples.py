"""How many samples of validation or test data are training samples too: found by what is in them, whatever they are called.

Data in which equal samples are natural (tables of few columns, short texts) are no mistake: what is found is compared with how
many training samples have an equal one among the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_lightning.data.content import item_bytes, item_digest
from kd_lightning.data.items import ItemForm
from kd_lightning.data.sample_data import Items
from kd_lightning.errors import UserError

MOST, MOST_BYTES = 2_000, 64 << 20
"""So many validation or test samples are looked at, evenly spread, and fewer if these are more bytes."""
LEAST = 0.05
"""The share of samples beyond what is natural from which on it is told."""


class TrainingItems:
    """Reads training items by row and remembers what they hold.

    Args:
        items: of the training data set.
        form: how they are taken apart.
    """

    def __init__(self, items: Items, form: ItemForm) -> None:
        self._items, self._form = items, form
        self._marks: dict[int, str] = {}

    def __call__(self, row: int) -> Any:
        """The item at ``row``."""
        item = self._items(row)
        self._marks[row] = _mark(item, self._form)
        return item

    def shared(self, key: str, dataset: Any, trained: int) -> str | None:
        """Words on how many samples of another data set were read here, if these are more than is natural.

        Args:
            key: the data set's config key.
            dataset: validation or test samples.
            trained: training samples, of which those that were read are a part that lies evenly spread.
        """
        counted = Counter(self._marks.values())
        read, total = len(self._marks), len(dataset)
        other = Items(dataset, key)
        most = max(64, min(total, MOST, MOST_BYTES // max(1, item_bytes(other(0)))))
        rows = torch.linspace(0, total - 1, min(most, total), dtype=torch.float64).round().long()
        looked_at, found = len(rows), sum(_mark(other(row), self._form) in counted for row in rows.tolist())
        natural = (sum(count for count in counted.values() if count > 1) + 2) / (read + 2)  # two more: few tell little
        chance = 3 * (looked_at * natural * max(0.0, 1 - natural)) ** 0.5
        if found - natural * looked_at <= max(LEAST * looked_at * read / trained, chance):
            return None
        if (read, looked_at) == (trained, total):
            told = f"{found:,} of its {total:,} samples"
        else:
            told = f"about {min(1.0, found / looked_at * trained / read):.0%} of its {total:,} samples"
        return f"{key}: {told} are training samples too: its figures say what is remembered, not what new samples would show"


def _mark(item: Any, form: ItemForm) -> str:
    try:
        inputs = form.split(item)[0]
    except UserError:  # what a collate function takes apart
        inputs = item
    return item_digest(_plain(inputs))


def _plain(value: Any) -> Any:
    """Floats of any width are alike, and so are arrays and tensors."""
    if isinstance(value, Tensor):
        value = (value.float() if value.is_floating_point() else value).detach().cpu().numpy()
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return value.astype(np.float32)
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value
