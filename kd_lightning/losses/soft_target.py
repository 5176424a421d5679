"""Soft-target distillation (Hinton, Vinyals & Dean 2015, arXiv:1503.02531, section 2).

The teacher's probabilities say more than its decision: which wrong classes are nearly right. A temperature above 1
makes those small probabilities large enough to be learned from.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.losses.inputs import checked_temperature, paired_logits
from kd_lightning.outputs import ModelOutput


def softened_divergence(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """``T^2 * KL(softmax(t / T) || softmax(s / T))`` for each sample: logits (N, C, ...) give (N, ...).

    Both sides stay logarithms up to the product ``p * (log p - log q)``, so that a probability that underflows to zero
    contributes zero instead of ``0 * inf``.
    """
    student_log = F.log_softmax(student_logits / temperature, dim=1)
    teacher_log = F.log_softmax(teacher_logits / temperature, dim=1)
    return F.kl_div(student_log, teacher_log, reduction="none", log_target=True).sum(dim=1) * temperature**2


class SoftTargetLoss(nn.Module):
    """KL divergence from teacher to student, both softened by a temperature.

    ``loss = T^2 * mean_i KL( softmax(t_i / T) || softmax(s_i / T) )``: summed over classes, averaged over samples (and
    over positions, for logits of shape (N, C, ...)). The factor ``T^2`` cancels the ``1 / T^2`` of the gradient, so
    that a loss weight means the same at every temperature. The ground truth is not used: unlabelled samples count
    like others.

    Args:
        temperature: softening T, > 0; 1 leaves the outputs as they are.
        standardise: compare each sample's logits standardised (:func:`kd_lightning.losses.inputs.standardised`).
    """

    takes_mixed = True

    def __init__(self, temperature: float = 4.0, standardise: bool = False) -> None:
        super().__init__()
        self.temperature = checked_temperature(temperature)
        self.standardise = standardise

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Logits of shape (N, C) or (N, C, ...), the same for both; returns a scalar >= 0."""
        student_logits, teacher_logits = paired_logits(student, teacher, self.standardise)
        t = self.temperature
        student_log = F.log_softmax(student_logits / t, dim=1)
        teacher_log = F.log_softmax(teacher_logits / t, dim=1)
        # summed at once and scaled as one number: the mean of softened_divergence() in fewer operations a step
        positions = student_logits.numel() // student_logits.shape[1]
        return F.kl_div(student_log, teacher_log, reduction="sum", log_target=True) * (t * t / max(1, positions))

    def per_sample(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """The loss of each sample: (N,), or (N, ...) for logits with positions."""
        return softened_divergence(*paired_logits(student, teacher, self.standardise), self.temperature)

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}"
