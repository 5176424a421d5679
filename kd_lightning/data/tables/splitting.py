"""Which rows of a table are test, validation and training: at random, whole groups together, or by time."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kd_lightning.data.split import count_of, stratified_order

TEST_SEED = 1013


def split_rows(
    order_by: np.ndarray | None,
    by_time: bool,
    classes: Tensor,
    known: Tensor,
    test_size: float,
    val_size: float,
    seed: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Positions of the training, validation and test rows.

    Rows without a target are never validation or test; in a split by group or time, those of a group that is, are left out.

    Args:
        order_by: by row, the group's or moment's number; None: each row is by itself.
        by_time: the last moments are test, those before them validation.
        classes: (N,) class numbers, among which random rows are balanced; anything else as long is only shuffled.
        known: (N,) bool, which rows have a target.
        test_size, val_size: rows, or their fraction of those that have a target (of what is left by test).
        seed: of the choice of validation; test is always the same.
    """
    if order_by is None:
        rows = torch.arange(len(known))[known]
        order = rows[stratified_order(classes[rows], TEST_SEED)]
        cut = count_of(test_size, len(order), "data.test_size")
        test, rest = order[:cut], order[cut:].sort().values
        order = rest[stratified_order(classes[rest], seed)]
        cut = count_of(val_size, len(order), "data.val_size")
        chosen = torch.zeros(len(known), dtype=torch.bool)
        chosen[test] = chosen[order[:cut]] = True
        return torch.arange(len(known))[~chosen], order[:cut], test
    groups = torch.from_numpy(np.unique(order_by, return_inverse=True)[1].reshape(-1))
    test_groups = _whole_groups(groups, known, test_size, TEST_SEED, by_time, "data.test_size")
    in_test = torch.isin(groups, test_groups)
    val_groups = _whole_groups(
        torch.where(in_test, -1, groups), known & ~in_test, val_size, seed, by_time, "data.val_size"
    )
    in_val = torch.isin(groups, val_groups)
    rows = torch.arange(len(known))
    return rows[~in_test & ~in_val], rows[in_val & known], rows[in_test & known]


def _whole_groups(groups: Tensor, known: Tensor, size: float, seed: int, by_time: bool, key: str) -> Tensor:
    """Numbers of the groups that hold about ``size`` of the known rows, at least one, but for 0 none."""
    wanted = count_of(size, int(known.sum()), key)
    present, counts = groups[known].unique(return_counts=True)
    if not wanted:
        return present[:0]
    order = torch.arange(len(present)).flip(0) if by_time else stratified_order(torch.zeros(len(present)), seed)
    taken = counts[order].cumsum(0)
    number = min(int((taken < wanted).sum()) + 1, len(present) - 1)
    return present[order[: max(1, number)]]
