"""Probabilistic knowledge transfer (PKT: Passalis & Tefas 2018, arXiv:1803.10837): who is whose neighbour.

The cosine similarities of a batch, read as each sample's distribution over its neighbours, are matched by a divergence.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.inputs import exactly, paired_features
from kd_lightning.outputs import ModelOutput

EPSILON = 1e-7


def neighbourhood(features: Tensor, epsilon: float = EPSILON) -> Tensor:
    """Each sample's distribution over the samples of the batch: (N, ...) give (N, N), rows summing to 1."""
    rows = features.flatten(1)
    rows = rows / (torch.linalg.vector_norm(rows, dim=1, keepdim=True) + epsilon)
    kernel = (rows @ rows.T + 1) / 2  # cosines in [-1, 1] to [0, 1]
    return kernel / kernel.sum(dim=1, keepdim=True)


class NeighbourhoodLoss(nn.Module):
    """Divergence from the teacher's neighbourhoods to the student's.

    ``loss = mean_ij P_ij * log( (P_ij + eps) / (Q_ij + eps) )``, P the teacher's and Q the student's: averaged over
    all N^2 pairs, so the values are small and the usual weight is 30000. A sample with a zero feature has similarity
    1/2 to all, and no gradient (the published codes give nan there).

    Args:
        tap: name of the tap, for both models; usually the vector before the classifier.
        epsilon: eps, > 0; also added to the features' lengths.
    """

    takes_mixed = True
    requires = frozenset({"features"})

    def __init__(self, tap: str = "embedding", epsilon: float = EPSILON) -> None:
        super().__init__()
        if not epsilon > 0:
            raise UserError(f"epsilon must be > 0, got {epsilon}")
        self.tap, self.epsilon = tap, float(epsilon)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Features (N, ...) under the tap's name; returns a scalar."""
        with exactly(student.logits):
            student_features, teacher_features = paired_features(student, teacher, self.tap)
            q, p = (neighbourhood(values, self.epsilon) for values in (student_features, teacher_features))
            return (p * torch.log((p + self.epsilon) / (q + self.epsilon))).mean()
