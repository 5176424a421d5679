"""Is a sample the same when it is read again? What stored teacher outputs rest on, and how races show."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_lightning.data.loader.errors import SampleError


class TwoReadings(SampleError):
    """Two readings of a sample in one view differ."""


def equal(one: Any, other: Any) -> bool:
    """Whether two samples hold the same values; what cannot be compared counts as the same."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and _same_numbers(one, other)
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        nan = one.dtype.kind in "fc"
        return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=nan)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    if type(one).__eq__ is object.__eq__:
        return type(one) is type(other)
    try:
        return bool(one == other) or (one != one and other != other)
    except Exception:  # an object of the user's own with an idea of its own of ==
        return True


def _same_numbers(one: Tensor, other: Tensor) -> bool:
    if one.is_floating_point():
        return bool(((one == other) | (one.isnan() & other.isnan())).all())
    return torch.equal(one, other)


def require_equal(one: Any, other: Any, index: int) -> None:
    """Raise :class:`TwoReadings` if two readings of the sample at ``index`` differ."""
    if not equal(one, other):
        raise TwoReadings(
            f"two readings of sample {index} differ: the data set keeps random numbers of its own, or threads disturb "
            "each other in it (then leave out thread_safe = True)",
            index,
        )
