"""Normalised distillation (NKD: Yang et al. 2023, arXiv:2303.13005): the teacher's confidence weighs the label.

The paper's gamma is the weight of the second term. Unlabelled samples are left out of both.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.losses.classes import mean_over_labelled, other_classes, true_class
from kd_lightning.losses.inputs import checked_temperature, paired_logits
from kd_lightning.outputs import ModelOutput


class ConfidenceLoss(nn.Module):
    """Cross-entropy with the label, weighed by the probability that the teacher gives it.

    ``loss = -mean_i p_iy(teacher) * log p_iy(student)`` over labelled samples, both without softening.
    """

    temperature = 1.0

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Logits of shape (N, C), target of shape (N,); returns a scalar >= 0."""
        student_logits, teacher_logits = paired_logits(student, teacher)
        confidence = true_class(teacher_logits.softmax(dim=1), target)
        log_probability = true_class(F.log_softmax(student_logits, dim=1), target)
        return mean_over_labelled(-confidence * log_probability, target)


class OtherClassesCrossEntropy(nn.Module):
    """Cross-entropy of the distributions over all classes but the true one.

    ``loss = -T^2 * mean_i sum_c q_ic(teacher) * log q_ic(student)`` over labelled samples, where ``q`` is the softmax
    over the other classes at temperature T. It differs from DKD's term by the teacher's entropy, which has no
    gradient.

    Args:
        temperature: softening T, > 0; the paper uses 1.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = checked_temperature(temperature)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Logits of shape (N, C), target of shape (N,); returns a scalar >= 0."""
        student_logits, teacher_logits = paired_logits(student, teacher)
        student_log = F.log_softmax(other_classes(student_logits, target) / self.temperature, dim=1)
        teacher_probability = F.softmax(other_classes(teacher_logits, target) / self.temperature, dim=1)
        losses = -(teacher_probability * student_log).sum(dim=1)
        return mean_over_labelled(losses, target) * self.temperature**2
