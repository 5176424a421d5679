from __future__ import annotations

import pytest
import torch
from golden_cases import assert_finite_at_extremes, on_logits

from kd_lightning.losses.soft_target import SoftTargetLoss
from kd_lightning.losses.ttm import TransformedTeacherLoss, WeightedTransformedTeacherLoss


def test_at_temperature_one_both_are_soft_targets():
    student, teacher = torch.randn(5, 6), torch.randn(5, 6)
    expected = on_logits(SoftTargetLoss(1.0))(student, teacher)
    torch.testing.assert_close(on_logits(TransformedTeacherLoss(1.0))(student, teacher), expected)
    torch.testing.assert_close(on_logits(WeightedTransformedTeacherLoss(1.0))(student, teacher), expected)


@pytest.mark.parametrize("kind", [TransformedTeacherLoss, WeightedTransformedTeacherLoss])
def test_logit_gaps_of_ten_thousand_stay_finite(kind):
    assert_finite_at_extremes(on_logits(kind(4.0)))
