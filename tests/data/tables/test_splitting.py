"""Rows of a table split by whole groups: about as many as asked for, and none where none are asked for."""

from __future__ import annotations

import pytest
import torch

from kd_lightning.data.tables.splitting import _whole_groups

GROUPS = torch.arange(60) // 6
KNOWN = torch.ones(60, dtype=torch.bool)


@pytest.mark.parametrize(("size", "number"), [(0, 0), (0.2, 2), (1, 1), (12, 2)])
@pytest.mark.parametrize("by_time", [False, True])
def test_as_many_groups_are_taken_as_hold_the_rows_that_are_asked_for(size, number, by_time):
    assert len(_whole_groups(GROUPS, KNOWN, size, 0, by_time, "data.val_size")) == number
