from __future__ import annotations

import pytest
import torch
from golden_cases import assert_equals_reference, assert_finite_at_extremes, on_logits

from kd_lightning.losses.hard_label import HardLabelLoss


def test_loss_and_gradient_equal_the_reference():
    assert_equals_reference("kd", "hard_label", on_logits(HardLabelLoss()))


def test_only_the_teachers_decision_counts():
    student, teacher = torch.randn(6, 10), torch.randn(6, 10)
    term = on_logits(HardLabelLoss())
    torch.testing.assert_close(term(student, teacher), term(student, 100 * teacher))


def test_logit_gaps_of_ten_thousand_stay_finite():
    assert_finite_at_extremes(on_logits(HardLabelLoss()))


def test_smoothing_out_of_range_is_refused():
    with pytest.raises(ValueError, match="label_smoothing"):
        HardLabelLoss(label_smoothing=1.0)
