"""Relational distillation (RKD: Park et al. 2019, arXiv:1904.05068): keep distances and angles between samples.

The paper's lambda_D and lambda_A are the weights of the two terms, usually 25 and 50. Student and teacher may
differ in dimension. Cost: (N, N, D) numbers, and for angles N^3, in a batch of N.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.losses.inputs import exactly, paired_features
from kd_lightning.outputs import ModelOutput

EPSILON = 1e-12  # smallest squared distance: the root has no gradient at 0, where two samples coincide


def differences(features: Tensor) -> Tensor:
    """``e_ij = f_j - f_i``: features (N, ...) give (N, N, D)."""
    rows = features.flatten(1)
    return rows[None] - rows[:, None]


def relative_distances(features: Tensor) -> Tensor:
    """Distances between samples over their mean: (N, ...) give (N, N) with a diagonal of zeros."""
    count = features.shape[0]
    squared = differences(features).square().sum(dim=2).clamp(min=EPSILON)
    distances = squared.sqrt() * (1 - torch.eye(count, dtype=squared.dtype, device=squared.device))
    return distances / (distances.sum() / max(count * (count - 1), 1)).clamp(min=EPSILON)


def angles(features: Tensor) -> Tensor:
    """Cosine of the angle at sample i between j and k: (N, ...) give (N, N, N)."""
    directions = F.normalize(differences(features), dim=2)
    return directions @ directions.transpose(1, 2)


class DistanceLoss(nn.Module):
    """Huber loss between relative distances: ``mean_ij huber( d_ij(student) - d_ij(teacher) )`` over all N^2 pairs.

    Args:
        tap: name of the tap, for both models; usually the vector before the classifier.
        normalise: give each feature the length 1 first.
    """

    takes_mixed = True
    requires = frozenset({"features"})

    def __init__(self, tap: str = "embedding", normalise: bool = False) -> None:
        super().__init__()
        self.tap, self.normalise = tap, normalise

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Features (N, ...) under the tap's name; returns a scalar >= 0."""
        student_features, teacher_features = _features(student, teacher, self.tap, self.normalise)
        return F.smooth_l1_loss(relative_distances(student_features), relative_distances(teacher_features))


class AngleLoss(nn.Module):
    """Huber loss between angles: ``mean_ijk huber( cos_ijk(student) - cos_ijk(teacher) )`` over all N^3 triples.

    Args:
        tap: name of the tap, for both models; usually the vector before the classifier.
        normalise: give each feature the length 1 first.
    """

    takes_mixed = True
    requires = frozenset({"features"})

    def __init__(self, tap: str = "embedding", normalise: bool = False) -> None:
        super().__init__()
        self.tap, self.normalise = tap, normalise

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Features (N, ...) under the tap's name; returns a scalar >= 0."""
        with exactly(student.logits):
            student_features, teacher_features = _features(student, teacher, self.tap, self.normalise)
            return F.smooth_l1_loss(angles(student_features), angles(teacher_features))


def _features(student: ModelOutput, teacher: ModelOutput, tap: str, normalise: bool) -> tuple[Tensor, Tensor]:
    ours, theirs = (values.flatten(1) for values in paired_features(student, teacher, tap))
    return (F.normalize(ours, dim=1), F.normalize(theirs, dim=1)) if normalise else (ours, theirs)
