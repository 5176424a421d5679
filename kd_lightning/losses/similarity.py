"""Similarity-preserving distillation (SP: Tung & Mori 2019, arXiv:1907.09682): samples alike for the teacher be alike.

Only similarities between the samples of a batch are compared, so student and teacher may differ in every dimension.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.inputs import exactly, paired_features
from kd_lightning.outputs import ModelOutput


def similarity(features: Tensor, row_norm: int = 2) -> Tensor:
    """Inner products between the samples of a batch: features (N, ...) give (N, N), each row of length 1."""
    rows = features.flatten(1)
    return F.normalize(rows @ rows.T, p=row_norm, dim=1)


class SimilarityLoss(nn.Module):
    """Mean squared difference of the row-normalised similarity matrices, summed over taps.

    ``loss = sum_k |G_k(student) - G_k(teacher)|_F^2 / N^2``, rows of G normalised by their Euclidean norm. (One
    published code divides by the sum instead, since ``normalize``'s second argument is the exponent.) The usual
    weight is 3000.

    Args:
        taps: names of the taps to compare, the same for both models.
        row_norm: 2; 1 is that one code's (torchdistill's).
    """

    takes_mixed = True
    requires = frozenset({"features"})

    def __init__(self, taps: Sequence[str], row_norm: int = 2) -> None:
        super().__init__()
        if row_norm not in (1, 2):
            raise UserError(f"row_norm must be 1 or 2, got {row_norm}")
        self.row_norm = row_norm
        if not taps:
            raise UserError("SimilarityLoss needs at least one tap: set taps to names from method.taps.student")
        self.taps = list(taps)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Features (N, ...) under each tap's name, of any shape; returns a scalar >= 0."""
        losses = []
        with exactly(student.logits):  # products of sums: keep float32
            for tap in self.taps:
                student_features, teacher_features = paired_features(student, teacher, tap)
                losses.append(
                    (similarity(student_features, self.row_norm) - similarity(teacher_features, self.row_norm))
                    .square()
                    .mean()
                )
        return torch.stack(losses).sum()
