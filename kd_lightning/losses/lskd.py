"""Logit standardisation (Sun et al. 2024, arXiv:2403.01427): soft targets that ignore the logits' mean and size.

A shared temperature forces the student's logits to the teacher's range. Standardising each sample's logits first leaves
only their relations to be learned; the temperature then counts in standard deviations.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kd_lightning.losses.inputs import checked_temperature, paired_logits
from kd_lightning.losses.soft_target import softened_divergence
from kd_lightning.outputs import ModelOutput

EPSILON = 1e-7


def standardised(logits: Tensor) -> Tensor:
    """Each sample's logits minus their mean, over their (unbiased) standard deviation; zeros where that is zero."""
    variance = logits.var(dim=1, keepdim=True)
    # The root has no gradient at 0: a sample with equal logits is divided by 1 instead, its zeros stay zeros.
    deviation = torch.where(variance > 0, variance, 1.0).sqrt()
    return (logits - logits.mean(dim=1, keepdim=True)) / (deviation + EPSILON)


class StandardisedSoftTargetLoss(nn.Module):
    """Soft targets between standardised logits.

    ``loss = T^2 * mean_i KL( softmax(z(t_i) / T) || softmax(z(s_i) / T) )`` with ``z(x) = (x - mean) / std`` over
    classes.

    Args:
        temperature: softening T, > 0, in standard deviations; the paper uses 2 with a weight of 9.
    """

    def __init__(self, temperature: float = 2.0) -> None:
        super().__init__()
        self.temperature = checked_temperature(temperature)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Logits of shape (N, C) or (N, C, ...), C >= 2; returns a scalar >= 0."""
        student_logits, teacher_logits = paired_logits(student, teacher)
        losses = softened_divergence(standardised(student_logits), standardised(teacher_logits), self.temperature)
        return losses.mean()
