"""Heterogeneous distillation's kernels (HKD: Passalis et al. 2020, arXiv:2005.00850): neighbourhoods by other kernels.

The conditional probability that sample j is sample i's neighbour, by a kernel of their features, is to be the same for
both models.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.inputs import exactly, paired_features
from kd_lightning.outputs import ModelOutput

KERNELS = ("combined", "cosine", "student_t", "cauchy", "rbf")
LOSSES = ("jeffreys", "kl", "squared")
EPSILON = 1e-6  # added to squared distances, norms and ratios, as the authors do
SMALLEST = 1e-12  # probability whose logarithm is taken


def _squared_distances(rows: Tensor) -> Tensor:
    squares = rows.square().sum(dim=1)
    return (squares[:, None] + squares - 2 * rows @ rows.T).clamp(min=0) + EPSILON


class KernelNeighbourhoodLoss(nn.Module):
    """Divergence of the neighbourhood probabilities in a batch.

    Args:
        tap: for both models; features are flattened.
        kernel: "cosine" ``(cos + 1) / 2``, "student_t" ``1 / (1 + d)`` (d the distance), "cauchy"
            ``1 / (1 + d^2 / sigma^2)``, "rbf" ``exp(-d / sigma)``, or "combined"
            (the losses of cosine and student_t added, the paper's choice).
        loss: "jeffreys" ``mean (q - p) (log q - log p)``, "kl" ``mean p log(p / q)``, or "squared".
        sigma: width of cauchy and rbf, > 0.
    """

    takes_mixed = True
    requires = frozenset({"features"})

    def __init__(self, tap: str = "hint", kernel: str = "combined", loss: str = "jeffreys", sigma: float = 1.0) -> None:
        super().__init__()
        if kernel not in KERNELS:
            raise UserError(f"kernel must be one of {', '.join(KERNELS)}, got {kernel!r}")
        if loss not in LOSSES:
            raise UserError(f"loss must be one of {', '.join(LOSSES)}, got {loss!r}")
        self.tap, self.kernel, self.loss, self.sigma = tap, kernel, loss, float(sigma)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Features (N, ...) under the tap's name; returns a scalar >= 0."""
        ours, theirs = (values.flatten(1) for values in paired_features(student, teacher, self.tap))
        kernels = ("cosine", "student_t") if self.kernel == "combined" else (self.kernel,)
        with exactly(ours):
            return torch.stack([self._divergence(ours, theirs, kernel) for kernel in kernels]).sum()

    def _divergence(self, ours: Tensor, theirs: Tensor, kernel: str) -> Tensor:
        q, p = (self._probabilities(rows, kernel) for rows in (ours, theirs))
        if self.loss == "kl":
            return (p * (EPSILON + p / (EPSILON + q)).log()).mean()
        if self.loss == "squared":
            return (p - q).square().mean()
        return ((q - p) * (q.clamp(min=SMALLEST).log() - p.clamp(min=SMALLEST).log())).mean()

    def _probabilities(self, rows: Tensor, kernel: str) -> Tensor:
        if kernel == "cosine":
            unit = rows / (torch.linalg.vector_norm(rows, dim=1, keepdim=True) + EPSILON)
            values = (unit @ unit.T + 1) / 2
        else:
            squared = _squared_distances(rows)
            if kernel == "student_t":
                values = 1 / (1 + squared.sqrt())
            elif kernel == "cauchy":
                values = 1 / (1 + squared / self.sigma**2)
            else:
                values = (-squared.sqrt() / self.sigma).exp()
        return values / values.sum(dim=1, keepdim=True)
