from __future__ import annotations

import pytest
import torch
from golden_cases import assert_finite_at_extremes, on_logits

from kd_lightning.losses.dist import InterClassLoss, IntraClassLoss


def test_a_linear_change_of_the_probabilities_costs_nothing():
    teacher = torch.randn(6, 5, dtype=torch.float64)
    blurred = (0.3 * teacher.softmax(1) + 0.7 / 5).log()
    assert on_logits(InterClassLoss(1.0))(blurred, teacher).abs() < 1e-5
    assert on_logits(IntraClassLoss(1.0))(blurred, teacher).abs() < 1e-5


@pytest.mark.parametrize("term", [InterClassLoss(1.0), IntraClassLoss(1.0), InterClassLoss(4.0), IntraClassLoss(4.0)])
def test_logit_gaps_of_ten_thousand_stay_finite(term):
    assert_finite_at_extremes(on_logits(term))


def test_a_batch_of_one_has_nothing_to_correlate_within_a_class():
    leaf = torch.randn(1, 5, requires_grad=True)
    loss = on_logits(IntraClassLoss(2.0))(leaf, torch.randn(1, 5))
    loss.backward()
    assert loss == 4
    assert not leaf.grad.any()
