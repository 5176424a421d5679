"""Choosing samples by class, the same ones on every machine and in every version of torch or NumPy."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from kd_lightning.batch import UNLABELLED
from kd_lightning.data.augment import hash_bits
from kd_lightning.data.samples import labelled
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
    if size == 0:
        return 0
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


def hidden_labels(targets: Tensor | None, samples: int, kept: int | None) -> Tensor | None:
    """Which samples' labels are hidden, bool of shape (N,): all but the first ``kept`` of those that have one.

    Args:
        targets: in stratified order; None where they are not known before they are read.
        samples: N.
        kept: None hides none, and gives None.
    """
    if kept is None:
        return None
    known = torch.ones(samples, dtype=torch.bool) if targets is None else labelled(targets, UNLABELLED)
    count = int(known.sum())
    if kept > count:
        of = "training samples" if count == samples else f"of the {samples} training samples that have a label"
        raise UserError(f"data.labelled={kept} is more than the {count} {of}: take a smaller one, or null for all")
    return ~known | (known.cumsum(0) > kept)


def hide_labels(targets: Tensor, kept: int | None) -> Tensor:
    """Targets in stratified order, with all but the first ``kept`` labels hidden; None hides none."""
    hidden = hidden_labels(targets, len(targets), kept)
    return targets if hidden is None else masked(targets, hidden)


def masked(targets: Tensor, hidden: Tensor) -> Tensor:
    """A copy of ``targets`` in which the samples that ``hidden`` marks have no label: values are nan."""
    copy = targets.clone()
    copy[hidden] = math.nan if targets.is_floating_point() else UNLABELLED
    return copy
