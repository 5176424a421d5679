"""Attentive imitation (Saputra et al. 2019, "Distilling Knowledge From a Deep Pose Regressor Network", arXiv:1908.00858,
eq. 6 to 8)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kd_lightning.joints import VALUES
from kd_lightning.losses.values import value_triple
from kd_lightning.outputs import ModelOutput


class AttentiveImitationLoss(nn.Module):
    """Imitation of the teacher, sample by sample as far as the teacher is right.

    ``loss = mean_i phi_i |s_i - t_i|^2,  phi_i = 1 - |t_i - y_i|^2 / eta,  eta = max_j e_j - min_j e_j``, where ``e_j`` is
    the teacher's squared error. The paper takes eta over the whole training set, in advance; here it is the range of the
    errors seen so far, which is that after one epoch. phi is kept >= 0 (the paper's is below 0 for the worst samples, as
    no error lies below the smallest), and it is 1 for samples without a label: nothing speaks against the teacher there.
    """

    requires = frozenset({VALUES})
    largest: Tensor
    smallest: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("largest", torch.tensor(0.0))
        self.register_buffer("smallest", torch.tensor(float("inf")))

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Predictions (N, D) of both models, target (N, D), nan where it is not known; returns a scalar >= 0."""
        values = value_triple(student, teacher, target)
        known = values.known.all(1)
        errors = (values.teacher - values.target).square().sum(1)
        if self.training:
            self._see(errors, known)
        span = self.largest - self.smallest
        trust = torch.where(span > 0, 1 - errors / span.clamp_min(torch.finfo(span.dtype).tiny), 1.0).clamp_min(0)
        trust = torch.where(known, trust, 1.0)
        return (trust[:, None] * (values.student - values.teacher).square()).sum(1).mean()

    def _see(self, errors: Tensor, known: Tensor) -> None:
        largest = torch.where(known, errors, 0.0).max()
        smallest = torch.where(known, errors, float("inf")).min()
        self.largest.copy_(torch.maximum(self.largest, largest.to(self.largest)))
        self.smallest.copy_(torch.minimum(self.smallest, smallest.to(self.smallest)))
