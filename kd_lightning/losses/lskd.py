"""Logit standardisation (Sun et al. 2024, arXiv:2403.01427): soft targets that ignore the logits' mean and size.

A shared temperature forces the student's logits to the teacher's range. Standardising each sample's logits first leaves
only their relations to be learned; the temperature then counts in standard deviations.
"""

from __future__ import annotations

from torch import Tensor, nn

from kd_lightning.losses.inputs import (
    checked_temperature,
    paired_logits,
    require_no_masked_classes,
    require_several_classes,
    standardised,
)
from kd_lightning.losses.soft_target import softened_divergence
from kd_lightning.outputs import ModelOutput


class StandardisedSoftTargetLoss(nn.Module):
    """Soft targets between standardised logits.

    ``loss = T^2 * mean_i KL( softmax(z(t_i) / T) || softmax(z(s_i) / T) )`` with ``z(x) = (x - mean) / std`` over
    classes.

    Args:
        temperature: softening T, > 0, in standard deviations; the paper uses 2 with a weight of 9.
    """

    standardise = True
    takes_mixed = True

    def __init__(self, temperature: float = 2.0) -> None:
        super().__init__()
        self.temperature = checked_temperature(temperature)

    def prepare(self, student: ModelOutput, teacher: ModelOutput) -> None:
        """Refuse a teacher whose logits cannot be standardised."""
        require_no_masked_classes(teacher, "lskd")

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Logits of shape (N, C) or (N, C, ...), C >= 3 (of two, only the order is left); returns a scalar >= 0."""
        student_logits, teacher_logits = paired_logits(student, teacher)
        require_several_classes(student_logits, 3, "lskd")
        losses = softened_divergence(standardised(student_logits), standardised(teacher_logits), self.temperature)
        return losses.mean()
