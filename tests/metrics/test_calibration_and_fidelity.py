from __future__ import annotations

import math

import pytest
import torch

from kd_lightning.metrics.calibration import confidence_gaps, expected_calibration_error
from kd_lightning.metrics.fidelity import kl_to_teacher


def test_calibration_error_of_a_case_done_by_hand():
    confidence = torch.tensor([0.95, 0.95, 0.55, 0.55])
    correct = torch.tensor([True, True, True, False])
    gaps = confidence_gaps(confidence, correct, torch.ones(4, dtype=torch.bool))
    # bin of 0.95: two samples, gap 0.05; bin of 0.55: two samples, gap 0.05
    assert expected_calibration_error(gaps, 4) == pytest.approx(0.05)


def test_gaps_of_one_bin_cancel_and_gaps_of_different_bins_do_not():
    correct = torch.tensor([True, False])
    counted = torch.ones(2, dtype=torch.bool)
    same = confidence_gaps(torch.tensor([0.5, 0.5]), correct, counted)
    apart = confidence_gaps(torch.tensor([0.35, 0.65]), correct, counted)
    assert expected_calibration_error(same, 2) == 0
    assert expected_calibration_error(apart, 2) == pytest.approx(0.65)


def test_confidence_zero_and_one_fall_into_the_outer_bins():
    gaps = confidence_gaps(torch.tensor([0.0, 1.0]), torch.tensor([True, False]), torch.ones(2, dtype=torch.bool))
    assert gaps[0] == -1
    assert gaps[-1] == 1


def test_a_bin_holds_its_upper_edge():
    gaps = confidence_gaps(torch.tensor([0.5]), torch.tensor([False]), torch.ones(1, dtype=torch.bool), bins=2)
    assert gaps.tolist() == [0.5, 0.0]


def test_calibration_error_without_samples_is_nan():
    assert math.isnan(expected_calibration_error(torch.zeros(15), 0))


def test_divergence_equals_torch_distributions():
    teacher, student = torch.randn(20, 6).double(), torch.randn(20, 6).double()
    ours = kl_to_teacher(student.log_softmax(1), teacher.log_softmax(1))
    theirs = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=teacher), torch.distributions.Categorical(logits=student)
    )
    torch.testing.assert_close(ours, theirs)


def test_divergence_is_finite_where_the_teacher_rules_a_class_out():
    teacher = torch.tensor([[0.0, -math.inf]])
    student = torch.tensor([[-1.0, -0.5]])
    assert kl_to_teacher(student, teacher).item() == 1.0
