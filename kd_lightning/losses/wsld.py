"""Weighted soft labels (WSLD: Zhou et al. 2021, arXiv:2102.00650): soft targets where the student needs them.

A sample on which the student already does as well as the teacher mostly adds variance; its soft target counts less.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.losses.classes import mean_over_labelled
from kd_lightning.losses.inputs import checked_temperature, paired_logits
from kd_lightning.outputs import ModelOutput

EPSILON = 1e-7


class WeightedSoftLabelLoss(nn.Module):
    """Soft cross-entropy, each sample weighed by the ratio of student's and teacher's loss on the label.

    ``loss = -T^2 * mean_i w_i * sum_c p_ic(teacher, T) * log p_ic(student, T)`` over labelled samples, where
    ``w_i = 1 - exp(-CE_i(student) / CE_i(teacher))`` at T = 1 has no gradient. The authors weigh the term by 2.25.

    Args:
        temperature: softening T, > 0; the paper uses 2.
    """

    def __init__(self, temperature: float = 2.0) -> None:
        super().__init__()
        self.temperature = checked_temperature(temperature)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Logits of shape (N, C), target of shape (N,); returns a scalar >= 0."""
        student_logits, teacher_logits = paired_logits(student, teacher)
        student_log = F.log_softmax(student_logits / self.temperature, dim=1)
        teacher_probability = F.softmax(teacher_logits / self.temperature, dim=1)
        losses = -(teacher_probability * student_log).sum(dim=1)
        weights = self._weights(student_logits.detach(), teacher_logits, target)
        return mean_over_labelled(weights * losses, target) * self.temperature**2

    @staticmethod
    def _weights(student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
        known = target.clamp(min=0)
        student_loss = F.cross_entropy(student_logits, known, reduction="none")
        teacher_loss = F.cross_entropy(teacher_logits, known, reduction="none")
        return -torch.expm1(-student_loss / (teacher_loss + EPSILON))
