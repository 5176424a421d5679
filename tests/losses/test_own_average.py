"""Self-distillation from a moving average: it moves as it should, learns nothing itself, and travels in checkpoints."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from kd_lightning.batch import Batch
from kd_lightning.errors import UserError
from kd_lightning.joints import Clock
from kd_lightning.losses.own_average import OwnAverageLoss
from kd_lightning.losses.self_distillation import CentredCrossViewLoss
from kd_lightning.outputs import ModelOutput

CLOCK = Clock(0, 0, 10, 5)


@pytest.fixture
def term_and_student():
    student = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6))
    term = OwnAverageLoss(prototypes=8, hidden=5, bottleneck=3, momentum=0.5)
    term.prepare(ModelOutput(student(torch.randn(3, 4))), None)
    term.bind(student, None)
    return term, student


def views_of(student):
    inputs = [torch.randn(7, 4) for _ in range(2)]
    outputs = [ModelOutput(student(values)) for values in inputs]
    batch = Batch(inputs[0], None, also=(Batch(inputs[1], None),))
    return outputs[0], [(outputs[1], None)], batch


def test_it_is_the_published_loss_between_the_student_and_its_average(term_and_student):
    term, student = term_and_student
    term.eval()
    student.eval()
    output, views, batch = views_of(student)
    loss = term(output, None, None, views, CLOCK, batch)
    ours = [term.head(output.logits), term.head(views[0][0].logits)]
    plain = CentredCrossViewLoss(teacher_temperature=0.04)
    plain.centre = torch.zeros(1, 8)
    plain.eval()
    assert torch.allclose(loss, plain.of_views(ours, [o.detach() for o in ours], 0))  # the average is the student still


def test_the_average_moves_by_its_momentum_and_gets_no_gradient(term_and_student):
    term, student = term_and_student
    output, views, batch = views_of(student)
    term(output, None, None, views, CLOCK, batch).backward()
    assert all(p.grad is None for p in term.average.parameters())
    assert all(p.grad is not None for p in student.parameters())
    before = term.average["student"][0].weight.clone()
    with torch.no_grad():
        student[0].weight += 1.0
        student[1].running_mean += 5.0
    term.after_step(student, CLOCK._replace(step=5))
    momentum = 1 - 0.5 * (1 + math.cos(math.pi / 2)) / 2
    moved = momentum * before + (1 - momentum) * student[0].weight
    assert torch.allclose(term.average["student"][0].weight, moved, atol=1e-6)
    assert torch.equal(term.average["student"][1].running_mean, student[1].running_mean)
    term.after_step(student, CLOCK._replace(step=10))  # at the end nothing moves any more
    assert torch.allclose(term.average["student"][0].weight, moved, atol=1e-6)


def test_it_continues_from_its_state(term_and_student):
    term, student = term_and_student
    with torch.no_grad():
        student[0].weight += 1.0
    term.after_step(student, CLOCK)
    other = OwnAverageLoss(prototypes=8, hidden=5, bottleneck=3, momentum=0.5)
    other.prepare(ModelOutput(torch.zeros(3, 6)), None)
    other.bind(student, None)
    other.load_state_dict(term.state_dict())
    assert torch.equal(other.average["student"][0].weight, term.average["student"][0].weight)


def test_what_cannot_be_is_one_line(term_and_student):
    term, student = term_and_student
    output, _, batch = views_of(student)
    with pytest.raises(UserError, match=r"set data\.extra_views=1"):
        term(output, None, None, [], CLOCK, batch._replace(also=()))
    with pytest.raises(UserError, match=r"momentum must be in \[0, 1\)"):
        OwnAverageLoss(momentum=1.0)
    with pytest.raises(UserError, match="one vector a sample"):
        OwnAverageLoss().prepare(ModelOutput(torch.zeros(2, 3, 4, 4)), None)
