"""DIST (Huang et al. 2022, arXiv:2205.10536): match the teacher's order of things rather than its values.

A stronger teacher's probabilities are too sharp to be matched exactly. DIST asks only that they correlate: along each
sample's classes, and along each class's samples in the batch. The paper's beta and gamma are the weights of the two
terms.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kd_lightning.losses.inputs import checked_temperature, paired_logits, require_several_classes
from kd_lightning.outputs import ModelOutput

EPSILON = 1e-8  # added to the product of the norms, as the authors do


def correlation(one: Tensor, other: Tensor) -> Tensor:
    """Pearson correlation of the rows: (N, D) and (N, D) give (N,); 0 for a row without variance."""
    one = one - one.mean(dim=1, keepdim=True)
    other = other - other.mean(dim=1, keepdim=True)
    norms = torch.linalg.vector_norm(one, dim=1) * torch.linalg.vector_norm(other, dim=1)
    return (one * other).sum(dim=1) / (norms + EPSILON)


class InterClassLoss(nn.Module):
    """One minus the correlation of a sample's probabilities, averaged over samples.

    ``loss = T^2 * (1 - mean_i r( p_i(student), p_i(teacher) ))`` with probabilities at temperature T; in [0, 2 T^2].

    Args:
        temperature: softening T, > 0; the paper uses 1, and 4 on CIFAR-100.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = checked_temperature(temperature)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Logits of shape (N, C) or (N, C, ...), C >= 3, whose positions count as samples; returns a scalar."""
        require_several_classes(student.logits, 3, "dist's term between classes")
        student_rows, teacher_rows = _probabilities(student, teacher, self.temperature)
        return (1 - correlation(student_rows, teacher_rows).mean()) * self.temperature**2


class IntraClassLoss(nn.Module):
    """One minus the correlation of a class's probabilities over the batch, averaged over classes.

    ``loss = T^2 * (1 - mean_c r( p_c(student), p_c(teacher) ))``, where ``p_c`` holds class c's probability for each
    sample of the batch. It depends on which samples meet in a batch; a batch of one gives T^2, without a gradient.

    Args:
        temperature: softening T, > 0.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = checked_temperature(temperature)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Logits of shape (N, C) or (N, C, ...), whose positions count as samples; returns a scalar."""
        student_rows, teacher_rows = _probabilities(student, teacher, self.temperature)
        return (1 - correlation(student_rows.T, teacher_rows.T).mean()) * self.temperature**2


def _probabilities(student: ModelOutput, teacher: ModelOutput, temperature: float) -> list[Tensor]:
    """Softened probabilities of both models as rows (N, C)."""
    return [
        (logits.movedim(1, -1).flatten(0, -2) / temperature).softmax(dim=1)
        for logits in paired_logits(student, teacher)
    ]
