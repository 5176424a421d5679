"""Losses for dense prediction heads (CrossKD: Wang et al. 2024, arXiv:2306.11369), one logit a class and position."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.inputs import checked_temperature, paired_logits
from kd_lightning.outputs import ModelOutput


class QualityFocalLoss(nn.Module):
    """Binary cross-entropy with the teacher's scores, weighed by how far the two are apart.

    ``loss = mean |sigmoid(s) - sigmoid(t)|^beta * BCE(s, sigmoid(t))`` over samples and classes; the gradient goes
    through the weight too.

    Args:
        beta: exponent of the weight, >= 1.
    """

    takes_mixed = True

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        if not beta >= 1:
            raise UserError(f"beta must be >= 1, got {beta}")
        self.beta = float(beta)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Logits of shape (N, C, ...), one of each class; returns a scalar >= 0."""
        return self.elements(student, teacher).mean()

    def elements(self, student: ModelOutput, teacher: ModelOutput) -> Tensor:
        """The loss of each logit, (N, C, ...)."""
        ours, theirs = paired_logits(student, teacher)
        scores = theirs.sigmoid()
        gap = (ours.sigmoid() - scores).abs() ** self.beta
        return gap * F.binary_cross_entropy_with_logits(ours, scores, reduction="none")


class BinDivergenceLoss(nn.Module):
    """Soft targets between distributions over bins, as heads have them that predict a box's sides.

    ``loss = T^2 * mean_i KL( softmax(t_i / T) || softmax(s_i / T) )``, divided by the number of bins with
    ``mean_over_bins`` (what detection code bases do).

    Args:
        temperature: softening T, > 0.
        mean_over_bins: average over bins too.
    """

    def __init__(self, temperature: float = 10.0, mean_over_bins: bool = True) -> None:
        super().__init__()
        self.temperature, self.mean_over_bins = checked_temperature(temperature), mean_over_bins

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Logits of shape (N, bins); returns a scalar >= 0."""
        return self.per_sample(student, teacher, target).mean()

    def per_sample(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """The loss of each row, (N,)."""
        ours, theirs = (F.log_softmax(logits / self.temperature, dim=1) for logits in paired_logits(student, teacher))
        losses = F.kl_div(ours, theirs, reduction="none", log_target=True) * self.temperature**2
        return losses.mean(dim=1) if self.mean_over_bins else losses.sum(dim=1)
