from __future__ import annotations

import torch
from golden_cases import assert_equals_reference, assert_finite_at_extremes, on_logits

from kd_lightning.losses.lskd import StandardisedSoftTargetLoss


def test_where_all_logits_are_equal_the_loss_is_the_references_and_the_gradient_finite():
    term = on_logits(StandardisedSoftTargetLoss(4.0))
    assert_equals_reference("lskd", "lskd_T4_flat_student", term, gradient=False)
    leaf = torch.zeros(4, 10, requires_grad=True)
    term(leaf, torch.randn(4, 10)).backward()
    assert torch.isfinite(leaf.grad).all()


def test_shift_and_scale_of_either_models_logits_do_not_matter():
    student, teacher = torch.randn(5, 6, dtype=torch.float64), torch.randn(5, 6, dtype=torch.float64)
    term = on_logits(StandardisedSoftTargetLoss(2.0))
    torch.testing.assert_close(term(3 * student + 1, 0.2 * teacher - 5), term(student, teacher), rtol=1e-5, atol=0)


def test_logit_gaps_of_ten_thousand_stay_finite():
    assert_finite_at_extremes(on_logits(StandardisedSoftTargetLoss(2.0)))
