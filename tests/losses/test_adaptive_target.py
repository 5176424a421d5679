"""OFA's adaptive target where not every sample has a label."""

from __future__ import annotations

import torch

from kd_lightning.losses.adaptive_target import AdaptiveTargetLoss
from kd_lightning.outputs import ModelOutput

STUDENT, TEACHER = torch.randn(4, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)


def test_a_sample_without_a_label_learns_the_teachers_probabilities_with_no_class_enhanced():
    student = STUDENT.clone().requires_grad_()
    target = torch.tensor([3, -1, 0, -1])
    loss = AdaptiveTargetLoss(power=1.3, temperature=2.0)(ModelOutput(student), ModelOutput(TEACHER), target)
    expected = torch.zeros((), dtype=torch.float64)
    for i, label in enumerate(target.tolist()):
        p, q = (TEACHER[i] / 2).softmax(0), (student[i] / 2).softmax(0)
        for c in range(5):
            own = float(c == label)
            expected = expected - ((p[c] + own) ** 1.3 - own) * q[c].log() / 4
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    loss.backward()
    assert (student.grad.abs().sum(dim=1) > 0).all()
