"""Transformed teacher matching (Zheng & Yang 2024, arXiv:2402.11148): soften the teacher only.

Soft targets divide both models' logits by T. Seen as a power transform of the teacher's probabilities, ``p^(1/T)``
normalised, there is no reason to soften the student too; leaving it alone adds a regularising entropy term.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.losses.inputs import checked_temperature, paired_logits
from kd_lightning.outputs import ModelOutput


class TransformedTeacherLoss(nn.Module):
    """KL divergence from the softened teacher to the student as it is.

    ``loss = mean_i KL( softmax(t_i / T) || softmax(s_i) )``, without a factor T^2. The paper's exponent is 1 / T.

    Args:
        temperature: the teacher's softening T, > 0.
    """

    takes_mixed = True

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__()
        self.temperature = checked_temperature(temperature)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Logits of shape (N, C) or (N, C, ...); returns a scalar >= 0."""
        return self.divergence(*paired_logits(student, teacher)).mean()

    def divergence(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """The divergence of each sample: logits (N, C, ...) give (N, ...)."""
        student_log = F.log_softmax(student_logits, dim=1)
        teacher_log = F.log_softmax(teacher_logits / self.temperature, dim=1)
        return F.kl_div(student_log, teacher_log, reduction="none", log_target=True).sum(dim=1)


class WeightedTransformedTeacherLoss(TransformedTeacherLoss):
    """The same with each sample weighed by how uncertain the teacher is (the paper's WTTM).

    The weight is ``u_i = sum_c p_ic(teacher)^(1/T)``: 1 for a certain teacher, up to ``C^(1 - 1/T)`` for one that
    does not know; ``loss = mean_i u_i * KL_i``.

    Args:
        temperature: the teacher's softening T, > 0.
    """

    takes_mixed = True

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Logits of shape (N, C) or (N, C, ...); returns a scalar >= 0."""
        student_logits, teacher_logits = paired_logits(student, teacher)
        weights = (F.log_softmax(teacher_logits, dim=1) / self.temperature).exp().sum(dim=1)
        return (weights * self.divergence(student_logits, teacher_logits)).mean()
