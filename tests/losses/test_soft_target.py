from __future__ import annotations

import pytest
import torch
from golden_cases import assert_finite_at_extremes, on_logits

from kd_lightning.errors import UserError
from kd_lightning.losses.soft_target import SoftTargetLoss
from kd_lightning.outputs import ModelOutput


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_logit_gaps_of_ten_thousand_stay_finite(temperature):
    assert_finite_at_extremes(on_logits(SoftTargetLoss(temperature)))


def test_half_precision_logits_are_computed_in_float32():
    student, teacher = torch.randn(4, 10), torch.randn(4, 10)
    for dtype in (torch.float16, torch.bfloat16):
        value = on_logits(SoftTargetLoss())(student.to(dtype), teacher.to(dtype))
        exact = on_logits(SoftTargetLoss())(student.to(dtype).double(), teacher.to(dtype).double())
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), exact, rtol=1e-4, atol=1e-6)


def test_equal_logits_cost_nothing():
    logits = torch.randn(4, 10)
    assert on_logits(SoftTargetLoss())(logits, logits.clone()).abs() < 1e-6


def test_gradient_size_does_not_depend_on_a_high_temperature():
    student, teacher = torch.randn(16, 10), torch.randn(16, 10)
    sizes = []
    for temperature in (20.0, 200.0):
        leaf = student.clone().requires_grad_()
        on_logits(SoftTargetLoss(temperature))(leaf, teacher).backward()
        sizes.append(leaf.grad.norm())
    assert 0.9 < sizes[0] / sizes[1] < 1.1


def test_positions_count_as_samples():
    student, teacher = torch.randn(2, 5, 3, 3), torch.randn(2, 5, 3, 3)
    flat = [logits.permute(0, 2, 3, 1).reshape(-1, 5) for logits in (student, teacher)]
    torch.testing.assert_close(on_logits(SoftTargetLoss())(student, teacher), on_logits(SoftTargetLoss())(*flat))


def test_no_gradient_reaches_the_teacher():
    teacher = torch.randn(4, 10, requires_grad=True)
    on_logits(SoftTargetLoss())(torch.randn(4, 10, requires_grad=True), teacher).backward()
    assert teacher.grad is None


def test_a_teacher_under_inference_mode_can_be_learned_from():
    with torch.inference_mode():
        teacher = torch.randn(4, 10) * 1.0
    leaf = torch.randn(4, 10, requires_grad=True)
    on_logits(SoftTargetLoss())(leaf, teacher).backward()
    assert leaf.grad.abs().sum() > 0


def test_different_numbers_of_classes_are_named():
    with pytest.raises(UserError, match=r"\(4, 10\).*\(4, 100\).*num_classes"):
        SoftTargetLoss()(ModelOutput(torch.zeros(4, 10)), ModelOutput(torch.zeros(4, 100)), torch.zeros(4))


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf"), "4", True])
def test_a_temperature_that_cannot_be_is_refused(temperature):
    with pytest.raises(UserError, match=r"method\.temperature"):
        SoftTargetLoss(temperature=temperature)
