"""Choosing samples by class, the same ones on every machine and in every version of torch or NumPy."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kd_lightning.batch import UNLABELLED
from kd_lightning.data.augment import hash_bits
from kd_lightning.errors import UserError

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


def count_of(size: float, total: int, key: str) -> int:
    """``size`` as a number of samples: itself, or that fraction of ``total`` if below 1. Leaves some of ``total``."""
    count = int(size) if size >= 1 else max(1, round(size * total))
    if count >= total:
        raise UserError(f"{key}={size} leaves nothing of {total} samples to train on: lower it")
    return count


def keep_first(order: Tensor, train_size: int | None) -> Tensor:
    """The first ``train_size`` of the training samples, all for None."""
    if train_size is not None and train_size > len(order):
        raise UserError(
            f"data.train_size={train_size} is more than the {len(order)} training samples that there are without "
            "validation: take a smaller one, or null for all"
        )
    return order if train_size is None else order[:train_size]


def hide_labels(targets: Tensor, labelled: int | None) -> Tensor:
    """Targets in stratified order, with all but the first ``labelled`` hidden as ``UNLABELLED``; None hides none."""
    if labelled is None:
        return targets
    if labelled > len(targets):
        raise UserError(
            f"data.labelled={labelled} is more than the {len(targets)} training samples: take a smaller one, or null "
            "for all"
        )
    if targets.is_floating_point():
        raise UserError("data.labelled hides class numbers, and these targets are not: set data.labelled=null")
    hidden = targets.clone()
    hidden[labelled:] = UNLABELLED
    return hidden
