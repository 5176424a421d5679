"""DIST (Huang et al. 2022, arXiv:2205.10536): match the teacher's order of things rather than its values.

A stronger teacher's probabilities are too sharp to be matched exactly. DIST asks only that they correlate: along each
sample's classes, and along each class's samples in the batch. The paper's beta and gamma are the weights of the two
terms.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.inputs import checked_temperature, paired_logits, require_several_classes
from kd_lightning.outputs import ModelOutput

EPSILON = 1e-8  # added to the product of the norms, as the authors do


EPSILON_ON = ("product", "norms")


def correlation(one: Tensor, other: Tensor, epsilon_on: str = "product") -> Tensor:
    """Pearson correlation of the rows: (N, D) and (N, D) give (N,); 0 for a row without variance.

    What keeps the divisor from 0 is added to the ``product`` of the norms, or bounds each of the ``norms``.
    """
    one = one - one.mean(dim=1, keepdim=True)
    other = other - other.mean(dim=1, keepdim=True)
    if epsilon_on == "norms":
        return F.cosine_similarity(one, other, dim=1, eps=EPSILON)
    norms = torch.linalg.vector_norm(one, dim=1) * torch.linalg.vector_norm(other, dim=1)
    return (one * other).sum(dim=1) / (norms + EPSILON)


class InterClassLoss(nn.Module):
    """One minus the correlation of a sample's probabilities, averaged over samples.

    ``loss = T^2 * (1 - mean_i r( p_i(student), p_i(teacher) ))`` with probabilities at temperature T; in [0, 2 T^2].

    Args:
        temperature: softening T, > 0; the paper uses 1, and 4 on CIFAR-100.
        epsilon_on: "product", as the authors, or "norms", as torchdistill: up to 2 % apart where logits saturate.
    """

    takes_mixed = True

    def __init__(self, temperature: float = 1.0, epsilon_on: str = "product") -> None:
        super().__init__()
        self.temperature, self.epsilon_on = checked_temperature(temperature), _checked(epsilon_on)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Logits of shape (N, C) or (N, C, ...), C >= 3, whose positions count as samples; returns a scalar."""
        require_several_classes(student.logits, 3, "dist's term between classes")
        student_rows, teacher_rows = _probabilities(student, teacher, self.temperature)
        return (1 - correlation(student_rows, teacher_rows, self.epsilon_on).mean()) * self.temperature**2


class IntraClassLoss(nn.Module):
    """One minus the correlation of a class's probabilities over the batch, averaged over classes.

    ``loss = T^2 * (1 - mean_c r( p_c(student), p_c(teacher) ))``, where ``p_c`` holds class c's probability for each
    sample of the batch. It depends on which samples meet in a batch; a batch of one gives T^2, without a gradient.

    Args:
        temperature: softening T, > 0.
        epsilon_on: as in :class:`InterClassLoss`.
    """

    takes_mixed = True

    def __init__(self, temperature: float = 1.0, epsilon_on: str = "product") -> None:
        super().__init__()
        self.temperature, self.epsilon_on = checked_temperature(temperature), _checked(epsilon_on)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Logits of shape (N, C) or (N, C, ...), whose positions count as samples; returns a scalar."""
        student_rows, teacher_rows = _probabilities(student, teacher, self.temperature)
        return (1 - correlation(student_rows.T, teacher_rows.T, self.epsilon_on).mean()) * self.temperature**2


def _checked(epsilon_on: str) -> str:
    if epsilon_on not in EPSILON_ON:
        raise UserError(f"epsilon_on must be one of {', '.join(EPSILON_ON)}, got {epsilon_on!r}")
    return epsilon_on


def _probabilities(student: ModelOutput, teacher: ModelOutput, temperature: float) -> list[Tensor]:
    """Softened probabilities of both models as rows (N, C)."""
    return [
        (logits.movedim(1, -1).flatten(0, -2) / temperature).softmax(dim=1)
        for logits in paired_logits(student, teacher)
    ]
