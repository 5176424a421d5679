"""The instance relationship graph's taps."""

from __future__ import annotations

import pytest
import torch

from kd_lightning.errors import UserError
from kd_lightning.losses.instance_graph import InstanceGraphLoss
from kd_lightning.outputs import ModelOutput


def test_a_vector_where_a_map_belongs_is_told_with_its_tap():
    features = {"first": torch.randn(2, 4, 4, 4), "second": torch.randn(2, 8), "vector": torch.randn(2, 8)}
    output = ModelOutput(torch.randn(2, 3), features=features)
    with pytest.raises(UserError, match=r"tap 'second': IRG needs maps.*\(2, 8\)"):
        InstanceGraphLoss()(output, output, torch.zeros(2, dtype=torch.long))
