from __future__ import annotations

import pytest
import torch
from golden_cases import assert_finite_at_extremes, on_logits

from kd_lightning.losses.multi_level import BatchCorrelationLoss, ClassCorrelationLoss


@pytest.mark.parametrize("kind", [ClassCorrelationLoss, BatchCorrelationLoss])
def test_logit_gaps_of_ten_thousand_stay_finite(kind):
    assert_finite_at_extremes(on_logits(kind(4.0)))


def test_swapping_samples_within_a_class_pattern_is_seen_by_the_batch_term_only():
    teacher = torch.randn(4, 6)
    student = teacher[[1, 0, 3, 2]]
    assert on_logits(ClassCorrelationLoss())(student, teacher) < 1e-10
    assert on_logits(BatchCorrelationLoss())(student, teacher) > 1e-6
