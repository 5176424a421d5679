from __future__ import annotations

import pytest
import torch
from golden_cases import assert_equals_reference, assert_finite_at_extremes, cases_of, hyperparameters, on_logits

from kd_lightning.losses.wsld import WeightedSoftLabelLoss


@pytest.mark.parametrize("case", cases_of("wsld"))
def test_loss_and_gradient_equal_the_references(case):
    given = hyperparameters("wsld", case)
    term = on_logits(WeightedSoftLabelLoss(given.get("temp", given.get("tau"))))
    assert_equals_reference("wsld", case, lambda *x: given.get("alpha", 1.0) * term(*x))


def test_a_sample_that_the_student_knows_perfectly_counts_nothing():
    student = torch.tensor([[1000.0, 0.0, 0.0]])
    assert on_logits(WeightedSoftLabelLoss())(student, torch.randn(1, 3), torch.tensor([0])) == 0


def test_logit_gaps_of_ten_thousand_stay_finite():
    assert_finite_at_extremes(lambda s, t: on_logits(WeightedSoftLabelLoss())(s, t, torch.zeros(4, dtype=torch.int64)))
