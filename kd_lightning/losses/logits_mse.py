"""Regression of the teacher's logits (Kim et al. 2021, arXiv:2105.08919; first: Ba & Caruana 2014, arXiv:1312.6184)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.losses.inputs import paired_logits, require_no_masked_classes
from kd_lightning.outputs import ModelOutput


class LogitsMSELoss(nn.Module):
    """Mean squared difference of the logits themselves, without a softmax.

    ``loss = mean_{i,c} (s_ic - t_ic)^2``: averaged over samples *and* classes. It is the limit of soft targets
    for a large temperature, but it also matches the logits' mean, which a softmax does not see; Kim et al. find it at
    least as good as soft targets when the labels are clean.
    """

    takes_mixed = True
    requires = frozenset({"unnormalised logits"})

    def prepare(self, student: ModelOutput, teacher: ModelOutput) -> None:
        """Refuse a teacher whose logits are no numbers to be matched."""
        require_no_masked_classes(teacher, "logits_mse")

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Logits of shape (N, C) or (N, C, ...), the same for both; returns a scalar >= 0."""
        student_logits, teacher_logits = paired_logits(student, teacher)
        return F.mse_loss(student_logits, teacher_logits)
