from __future__ import annotations

import pytest
import torch
from golden_cases import on_features

from kd_lightning.errors import UserError
from kd_lightning.losses.attention import AttentionLoss


def test_only_where_a_model_looks_matters_not_how_strongly():
    maps = torch.randn(2, 3, 4, 4)
    assert on_features(AttentionLoss(["a"]), "a")(maps, -7 * maps) < 1e-12


def test_vectors_are_refused_by_name():
    with pytest.raises(UserError, match=r"tap 'a': attention needs maps.*\(2, 3\)"):
        on_features(AttentionLoss(["a"]), "a")(torch.randn(2, 3), torch.randn(2, 3))
    with pytest.raises(UserError, match="at least one tap"):
        AttentionLoss([])
