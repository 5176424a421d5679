from __future__ import annotations

import torch
from golden_cases import assert_finite_at_extremes, on_logits

from kd_lightning.losses.logits_mse import LogitsMSELoss
from kd_lightning.losses.soft_target import SoftTargetLoss


def test_value_worked_out_by_hand():
    student, teacher = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[1.0, 0.0], [3.0, 1.0]])
    assert on_logits(LogitsMSELoss())(student, teacher) == (0 + 4 + 9 + 1) / 4


def test_it_is_twice_the_soft_targets_over_the_classes_at_a_high_temperature():
    """Kim et al. 2021: for T -> inf the soft loss tends to half the squared difference of the centred logits."""
    student, teacher = torch.randn(8, 10, dtype=torch.float64), torch.randn(8, 10, dtype=torch.float64)
    student, teacher = (logits - logits.mean(1, keepdim=True) for logits in (student, teacher))
    soft = on_logits(SoftTargetLoss(temperature=1e4))(student, teacher)
    torch.testing.assert_close(on_logits(LogitsMSELoss())(student, teacher), 2 * soft, rtol=1e-3, atol=0)


def test_logit_gaps_of_ten_thousand_stay_finite():
    assert_finite_at_extremes(on_logits(LogitsMSELoss()))


def test_a_shift_of_all_logits_is_seen():
    logits = torch.randn(4, 10)
    torch.testing.assert_close(on_logits(LogitsMSELoss())(logits + 1, logits), torch.tensor(1.0), rtol=1e-4, atol=0)
