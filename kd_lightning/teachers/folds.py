"""Which training samples are left out together: folds by class, with equal samples in one fold."""

from __future__ import annotations

import numpy as np
from torch import Tensor


def content_numbers(rows: np.ndarray) -> np.ndarray:
    """A number for each row, int64 of shape (N,), equal for equal rows: 0, 1, … in order of appearance."""
    numbers: dict[object, int] = {}
    keys = list(rows) if rows.dtype == object else [row.tobytes() for row in rows]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys])


def together(rows: np.ndarray, groups: Tensor | None) -> np.ndarray:
    """What is left out together: a number for each row, int64 (N,): its group's where the data have groups, else its
    content's."""
    if groups is None:
        return content_numbers(rows)
    made: np.ndarray = np.unique(groups.numpy(), return_inverse=True)[1].reshape(-1)
    return made


def fold_numbers(
    contents: np.ndarray, targets: np.ndarray, known: np.ndarray, folds: int, seed: int, classes: bool
) -> np.ndarray:
    """The fold of each content that has a label, int64 of shape (contents,); -1 for others.

    Args:
        contents: by sample, from :func:`content_numbers`: samples that are equal share a fold.
        targets: of the samples.
        known: which of them have one, bool of shape (N,).
        folds: how many, >= 2.
        seed: of the choice.
        classes: targets are class numbers, which every fold shall have in the same shares.
    """
    random = np.random.default_rng(seed)
    made = np.full(int(contents.max()) + 1, -1)
    chosen, first = np.unique(contents[known], return_index=True)
    order = random.permutation(len(chosen))
    if classes:  # dealt out class by class
        order = order[np.argsort(targets[known][first][order], kind="stable")]
    made[chosen[order]] = np.arange(len(chosen)) % folds
    return made
