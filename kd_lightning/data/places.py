"""Where the samples of a split stand in the data as they were given: what stored answers are found by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class Places(NamedTuple):
    """Attributes:
    origin: which of the data as given they come from, "train", "val" or "test": what is split off the training data
        is of "train".
    rows: positions there, int64 of shape (N,), in the order of the split.
    total: how many samples are there; None: they have no order, only names.
    ids: what each of the N samples is called, where the data say it: a column's value, a file's path.
    """

    origin: str
    rows: Tensor
    total: int | None
    ids: Sequence[str] | None = None
