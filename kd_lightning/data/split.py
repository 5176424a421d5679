"""Choosing samples by class, the same ones on every machine and in every version of torch or NumPy."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kd_lightning.data.augment import hash_bits

_SPLIT_VIEW = -1  # a stream of its own, apart from the augmentation's views


def stratified_order(targets: Tensor, seed: int) -> Tensor:
    """A shuffled order in which every prefix holds the classes in nearly their overall proportions.

    Splits and subsets are prefixes of it, so the first 1,000 samples are among the first 5,000.

    Args:
        targets: class numbers, shape (N,), of an integer dtype; targets of another kind are only shuffled.
        seed: which of the orders.

    Returns:
        A permutation of N, int64.
    """
    n = len(targets)
    noise = hash_bits(seed, _SPLIT_VIEW, torch.arange(n), 1)[:, 0]
    shuffled = np.argsort(noise, kind="stable")
    if targets.dim() != 1 or targets.is_floating_point():
        return torch.from_numpy(shuffled)
    classes = targets.numpy()[shuffled]
    by_class = np.argsort(classes, kind="stable")
    _, starts, counts = np.unique(classes[by_class], return_index=True, return_counts=True)
    place = np.empty(n)  # where in its class a sample stands, as a fraction
    place[by_class] = (np.arange(n) - np.repeat(starts, counts) + 0.5) / np.repeat(counts, counts)
    return torch.from_numpy(shuffled[np.argsort(place, kind="stable")])
