from __future__ import annotations

import torch
from golden_cases import assert_finite_at_extremes, on_logits

from kd_lightning.losses.wsld import WeightedSoftLabelLoss


def test_a_sample_that_the_student_knows_perfectly_counts_nothing():
    student = torch.tensor([[1000.0, 0.0, 0.0]])
    assert on_logits(WeightedSoftLabelLoss())(student, torch.randn(1, 3), torch.tensor([0])) == 0


def test_logit_gaps_of_ten_thousand_stay_finite():
    assert_finite_at_extremes(lambda s, t: on_logits(WeightedSoftLabelLoss())(s, t, torch.zeros(4, dtype=torch.int64)))
