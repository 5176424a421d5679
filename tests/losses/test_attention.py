from __future__ import annotations

import pytest
import torch
from golden_cases import assert_equals_reference, cases_of, hyperparameters, on_features

from kd_lightning.errors import UserError
from kd_lightning.losses.attention import AttentionLoss


@pytest.mark.parametrize("case", cases_of("at"))
def test_loss_and_gradient_equal_the_references(case):
    taps = ["one", "two"] if case in ("mdistiller_p2", "repdistiller_p4") else ["one"]
    term = AttentionLoss(taps, power=hyperparameters("at", case).get("p", 2))
    assert_equals_reference("at", case, on_features(term, *taps))


def test_only_where_a_model_looks_matters_not_how_strongly():
    maps = torch.randn(2, 3, 4, 4)
    assert on_features(AttentionLoss(["a"]), "a")(maps, -7 * maps) < 1e-12


def test_vectors_are_refused_by_name():
    with pytest.raises(UserError, match=r"tap 'a': attention needs maps.*\(2, 3\)"):
        on_features(AttentionLoss(["a"]), "a")(torch.randn(2, 3), torch.randn(2, 3))
    with pytest.raises(UserError, match="at least one tap"):
        AttentionLoss([])
