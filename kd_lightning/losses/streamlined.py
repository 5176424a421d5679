"""Streamlined distillation (SKD, CVPR 2026): soft targets, and the directions in which a batch's samples lie.

Beside each sample's probabilities, the student matches how the samples of a batch lie to each other: the matrix of
cosines between their logits, whose error is measured in units of its own spread.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.inputs import checked_temperature, exactly, paired_logits, require_rows
from kd_lightning.losses.soft_target import softened_divergence
from kd_lightning.outputs import ModelOutput

FORMS = ("paper", "authors_code")


class InstanceLoss(nn.Module):
    """KL divergence of softened probabilities, ``mean_i KL( softmax(t_i / T) || softmax(s_i / T) )``, without T^2.

    ``form="authors_code"`` has the factor T^2 and keeps only samples of which the teacher is less sure (at T = 1) than
    the batch's median; the mean is still over all of them.

    Args:
        temperature: softening T, > 0.
        form: "paper" or "authors_code".
    """

    takes_mixed = True

    def __init__(self, temperature: float = 4.0, form: str = "paper") -> None:
        super().__init__()
        if form not in FORMS:
            raise UserError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
        self.temperature, self.form = checked_temperature(temperature), form

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Logits of shape (N, C); returns a scalar >= 0."""
        student_logits, teacher_logits = paired_logits(student, teacher)
        losses = softened_divergence(student_logits, teacher_logits, self.temperature)
        if self.form == "paper":
            return losses.mean() / self.temperature**2
        certainty = teacher_logits.softmax(dim=1).amax(dim=1)
        return (losses * (certainty <= certainty.quantile(0.5))).mean()


class DirectionLoss(nn.Module):
    """Mean Mahalanobis length of the rows of ``G_s - G_t``, G the cosines between the samples' logits, (N, N).

    ``loss = mean_i sqrt( d_i (cov(d) + tikhonov I)^-1 d_i^T )``, d the rows of the difference, cov their covariance
    over the batch. Needs at least 2 samples; a batch of one costs nothing.

    Args:
        tikhonov: added to the covariance's diagonal, > 0.
    """

    takes_mixed = True
    requires = frozenset({"unnormalised logits"})

    def __init__(self, tikhonov: float = 0.1) -> None:
        super().__init__()
        if not tikhonov > 0:
            raise UserError(f"tikhonov must be > 0, got {tikhonov}")
        self.tikhonov = float(tikhonov)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Logits of shape (N, C); returns a scalar >= 0."""
        require_rows(student.logits, "SKD's direction")
        with exactly(student.logits):
            ours, theirs = (F.normalize(logits, dim=1) for logits in paired_logits(student, teacher))
            difference = ours @ ours.T - theirs @ theirs.T
            if len(difference) < 2:
                return difference.sum() * 0.0
            centered = difference - difference.mean(dim=0, keepdim=True)
            covariance = centered.T @ centered / (len(difference) - 1)
            covariance = covariance + self.tikhonov * torch.eye(len(difference)).to(covariance)
            squared = (difference * torch.linalg.solve(covariance, difference.T).T).sum(dim=1)
            # the root has no gradient at 0, where a row is matched exactly
            return torch.where(squared > 0, squared, 1.0).sqrt().mul(squared > 0).mean()
