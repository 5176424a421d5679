"""AFD against its equations, written out sample by sample."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from kd_lightning.losses.attended_features import AttendedFeatureLoss
from kd_lightning.outputs import ModelOutput

TARGET = torch.zeros(3, dtype=torch.long)


def outputs() -> tuple[ModelOutput, ModelOutput]:
    torch.manual_seed(0)
    ours = {"a": torch.randn(3, 4, 8, 8).double(), "b": torch.randn(3, 6, 4, 4).double()}
    theirs = {"x": torch.randn(3, 8, 4, 4).double(), "y": torch.randn(3, 8, 4, 4).double()}
    return ModelOutput(torch.zeros(3, 2).double(), ours), ModelOutput(torch.zeros(3, 2).double(), theirs)


def where(maps: torch.Tensor) -> torch.Tensor:
    """Where one sample's maps (C, H, W) are active: a unit vector over positions."""
    squares = maps.square().mean(0).flatten()
    return squares / squares.norm()


@pytest.mark.parametrize("form", ["paper", "authors_code"])
def test_distances_are_weighed_by_a_softmax_over_the_students_layers(form):
    student, teacher = outputs()
    term = AttendedFeatureLoss(["a", "b"], ["x", "y"], dimension=5, form=form)
    term.prepare(student, teacher)
    term = term.double()
    total = 0.0
    for n in range(3):
        for t, hint in enumerate(teacher.features.values()):
            likeness, distances = [], []
            for s, guided in enumerate(student.features.values()):
                query = term.queries[t](hint[n].mean((1, 2)))
                key = term.bilinear(term.keys[s](guided[n].mean((1, 2))))
                likeness.append((query @ key + term.teacher_places[t] @ term.student_places[s]) / math.sqrt(5))
                resized = nn.functional.adaptive_avg_pool2d(guided[n], 4)
                difference = where(resized) - where(hint[n])
                distances.append(difference.norm() if form == "paper" else difference.square().mean())
            total = total + torch.stack(likeness).softmax(0) @ torch.stack(distances)
    torch.testing.assert_close(term(student, teacher, TARGET), total / 3, rtol=1e-9, atol=0)


def test_equal_layers_are_at_distance_zero_with_a_finite_gradient():
    _, teacher = outputs()
    maps = teacher.features["x"].clone().requires_grad_()
    student = ModelOutput(teacher.logits, {"a": maps})
    term = AttendedFeatureLoss(["a"], ["x"], dimension=5)
    term.prepare(student, teacher)
    loss = term.double()(student, teacher, TARGET)
    loss.backward()
    assert loss == 0
    assert torch.isfinite(maps.grad).all()
