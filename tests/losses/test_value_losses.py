"""Losses on values: by hand, by their limits, and one step of each method as the Distiller computes it."""

from __future__ import annotations

import math

import pytest
import torch
from method_builds import ALL, OF_VALUES, built

from kd_lightning.errors import UserError
from kd_lightning.losses.attentive_imitation import AttentiveImitationLoss
from kd_lightning.losses.outlier_aware import OutlierAwareLoss
from kd_lightning.losses.teacher_bounded import TeacherBoundedLoss
from kd_lightning.losses.value_regression import ValueRegressionLoss
from kd_lightning.models.mlp import MLP
from kd_lightning.outputs import ModelOutput
from kd_lightning.taps import Taps
from kd_lightning.tasks.regression import RegressionTask


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def outputs(student, teacher):
    return ModelOutput(column(*student).requires_grad_()), ModelOutput(column(*teacher))


@pytest.mark.parametrize(("kind", "expected"), [("mse", 5.0), ("mae", 2.0), ("huber", (0.5 + 2.5) / 2)])
def test_imitation_is_the_mean_difference_to_the_teacher(kind, expected):
    student, teacher = outputs([1, -3], [0, 0])
    loss = ValueRegressionLoss(kind)(student, teacher, column(math.nan, 9))
    assert float(loss) == pytest.approx(expected)


def test_the_teachers_error_is_the_bound():
    student, teacher = outputs([3, 1, 5], [2, 2, 0])
    target = column(0, 0, math.nan)
    # errors 9 against 4: counts; 1 against 4: does not; the third has no truth
    assert float(TeacherBoundedLoss()(student, teacher, target)) == pytest.approx(9 / 2)
    assert float(TeacherBoundedLoss(margin=4.0)(student, teacher, target)) == pytest.approx((9 + 1) / 2)


def test_imitation_is_weaker_where_the_teacher_was_wrong():
    student, teacher = outputs([1, 1, 1, 1], [0, 2, 3, 0])
    term = AttentiveImitationLoss().double()
    loss = term(student, teacher, column(0, 0, 0, math.nan))
    # teacher's squared errors 0, 4, 9: their range is 9; the last has no label
    expected = (1 * 1 + (1 - 4 / 9) * 1 + 0 * 4 + 1 * 1) / 4
    assert float(loss) == pytest.approx(expected)
    assert {"largest", "smallest"} <= set(term.state_dict())
    term.eval()
    later = term(*outputs([1], [2]), column(0))
    assert float(later) == pytest.approx(1 - 4 / 9)


def test_a_label_far_from_the_teacher_is_replaced_by_it():
    student, teacher = outputs([0, 0, 0, 0, 0], [1, 1, 1, 1, 2])
    term = OutlierAwareLoss(threshold=3.0).double()
    loss = term(student, teacher, column(1.1, 0.9, 1.1, 50, math.nan))
    # the median absolute difference is 0.1, so 50 is an outlier
    assert float(loss) == pytest.approx((1.1**2 + 0.9**2 + 1.1**2 + 1 + 4) / 5)
    scale = float(term.scale)
    term(student, teacher, column(*[math.nan] * 5))
    assert float(term.scale) == scale


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: ValueRegressionLoss("l2"), "kind must be"),
        (lambda: ValueRegressionLoss(delta=0), "delta must be"),
        (lambda: TeacherBoundedLoss(-1), "margin"),
        (lambda: OutlierAwareLoss(0), "threshold"),
        (lambda: ValueRegressionLoss()(*outputs([1, 2], [1, 2, 3]), column(1)), "same targets"),
    ],
)
def test_what_cannot_be_meant_is_refused(made, words):
    with pytest.raises(UserError, match=words):
        made()


def test_every_method_for_values_is_among_those_that_are_tested_as_such():
    assert {path.stem for path in ALL if {"values"} & set(built(path).requires)} == OF_VALUES


@pytest.mark.parametrize("path", [path for path in ALL if path.stem in OF_VALUES], ids=lambda path: path.stem)
@pytest.mark.parametrize("labels", ["some", "none"])
def test_it_learns_in_a_step_as_the_distiller_computes_it(path, labels):
    torch.manual_seed(0)
    method = built(path)
    task = RegressionTask(output="gaussian" if path.stem == "gaussian_kl" else "value", mean=0, std=1)
    width = task.sizes({"num_classes": 2})["num_classes"]
    student, teacher = MLP([8], 5, width), MLP([20], 5, width)
    inputs, target = torch.randn(16, 5), torch.randn(16, 2)
    target[: 4 if labels == "some" else 16] = math.nan
    with torch.no_grad():
        answer = task.read(Taps(teacher.eval(), {})(teacher, inputs))
    output = task.read(Taps(student, {})(student, inputs))
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    total, parts = method(output, answer, task.for_terms(target), task.loss(output, target))
    total.backward()
    assert torch.isfinite(total)
    nothing_to_say = path.stem == "bounded" and labels == "none"
    gradient = torch.cat([p.grad.flatten() for p in student.parameters()])
    assert bool((gradient != 0).any()) != nothing_to_say
    assert torch.isfinite(gradient).all()
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert set(parts) <= {"task", *method.active}
