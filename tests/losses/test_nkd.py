from __future__ import annotations

import torch
from golden_cases import assert_equals_reference, assert_finite_at_extremes, on_logits

from kd_lightning.losses.dkd import OtherClassesLoss
from kd_lightning.losses.nkd import ConfidenceLoss, OtherClassesCrossEntropy


def total(student, teacher, target):
    target = target.argmax(1) if target.ndim == 2 else target
    confidence, others = on_logits(ConfidenceLoss()), on_logits(OtherClassesCrossEntropy(1.0))
    return confidence(student, teacher, target) + 1.5 * others(student, teacher, target)


def test_weighted_terms_and_their_gradient_equal_the_reference():
    assert_equals_reference("nkd", "clskd_g1.5_T1_big", total)
    assert_equals_reference("nkd", "clskd_g1.5_T1_softlabel", total)


def test_the_others_pull_as_dkd_does():
    student, teacher = torch.randn(5, 6, requires_grad=True), torch.randn(5, 6)
    target = torch.tensor([0, 1, 2, -1, 5])
    one = torch.autograd.grad(on_logits(OtherClassesCrossEntropy(3.0))(student, teacher, target), student)
    other = torch.autograd.grad(on_logits(OtherClassesLoss(3.0))(student, teacher, target), student)
    torch.testing.assert_close(one, other)


def test_an_unlabelled_batch_costs_nothing():
    assert on_logits(ConfidenceLoss())(torch.randn(3, 4), torch.randn(3, 4), torch.full((3,), -1)) == 0


def test_logit_gaps_of_ten_thousand_stay_finite():
    assert_finite_at_extremes(lambda s, t: total(s, t, torch.zeros(4, dtype=torch.int64)))
