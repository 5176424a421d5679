from __future__ import annotations

import pytest
import torch
from golden_cases import assert_finite_at_extremes, on_logits

from kd_lightning.errors import UserError
from kd_lightning.losses.dkd import OtherClassesLoss, TrueClassLoss
from kd_lightning.losses.soft_target import SoftTargetLoss


def test_soft_targets_are_the_true_class_plus_the_others_weighed_by_the_teachers_doubt():
    student, teacher = torch.randn(1, 7, dtype=torch.float64), torch.randn(1, 7, dtype=torch.float64)
    target = torch.tensor([3])
    doubt = 1 - (teacher / 4).softmax(1)[0, 3]
    parts = on_logits(TrueClassLoss(4.0))(student, teacher, target)
    parts = parts + doubt * on_logits(OtherClassesLoss(4.0))(student, teacher, target)
    torch.testing.assert_close(parts, on_logits(SoftTargetLoss(4.0))(student, teacher, target))


@pytest.mark.parametrize("term", [TrueClassLoss(), OtherClassesLoss()])
def test_unlabelled_samples_are_left_out(term):
    student, teacher = torch.randn(4, 6), torch.randn(4, 6)
    some = on_logits(term)(student, teacher, torch.tensor([1, -1, 5, -1]))
    torch.testing.assert_close(some, on_logits(term)(student[[0, 2]], teacher[[0, 2]], torch.tensor([1, 5])))
    leaf = student.clone().requires_grad_()
    none = on_logits(term)(leaf, teacher, torch.full((4,), -1))
    none.backward()
    assert none == 0
    assert not leaf.grad.any()


@pytest.mark.parametrize("term", [TrueClassLoss(), OtherClassesLoss()])
def test_logit_gaps_of_ten_thousand_stay_finite(term):
    for label in (0, 1, 5):
        assert_finite_at_extremes(lambda s, t, label=label: on_logits(term)(s, t, torch.full((4,), label)))


def test_two_classes_have_no_others_to_compare():
    with pytest.raises(UserError, match="at least 3 classes"):
        on_logits(OtherClassesLoss())(torch.randn(4, 2), torch.randn(4, 2), torch.zeros(4, dtype=torch.int64))
    loss = on_logits(TrueClassLoss(1.0))(torch.randn(4, 2), torch.randn(4, 2), torch.zeros(4, dtype=torch.int64))
    assert loss > 0
