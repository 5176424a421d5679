"""Prime-aware adaptive distillation (PAD: Zhang et al. 2020, ECCV, arXiv:2008.01458): weigh samples by their noise.

Whoever predicts how uncertain the match of a sample is can afford to match hard samples less: easy, "prime" ones lead.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.joints import Clock
from kd_lightning.losses.embeddings import EmbeddingPair
from kd_lightning.losses.inputs import full_precision
from kd_lightning.outputs import ModelOutput

SMALLEST_VARIANCE = 1e-5


class PrimeAwareLoss(EmbeddingPair):
    """Squared distance of embeddings over a predicted variance, plus its logarithm.

    ``loss = mean_i ( |A(f_s,i) - f_t,i|^2 / D / sigma_i^2 + log sigma_i^2 )``, eq. 4, with
    ``sigma_i^2 = softplus(v . f_s,i + b) + 1e-5`` of each sample; A is a linear layer where lengths differ. In the first
    epochs the variance is 1, as the authors train the embedding first.

    Args:
        tap: of the embeddings; maps and tokens are averaged. None: the outputs themselves.
        warmup_epochs: epochs without the variance, >= 0.
    """

    takes_mixed = True
    requires = frozenset({"features"})

    def __init__(self, tap: str | None = "embedding", warmup_epochs: int = 1) -> None:
        super().__init__(tap)
        if warmup_epochs < 0:
            raise UserError(f"warmup_epochs of PAD must be >= 0, got {warmup_epochs}")
        self.warmup_epochs = warmup_epochs
        self.variance: nn.Linear | None = None

    def prepare(self, student: ModelOutput, teacher: ModelOutput) -> None:
        """Build the head and the variance's predictor; a second call changes nothing."""
        super().prepare(student, teacher)
        if self.variance is None:
            ours = self.raw(student)
            self.variance = nn.Linear(ours.shape[1], 1).to(ours.device)
            nn.init.zeros_(self.variance.weight)
            nn.init.constant_(self.variance.bias, 0.5413)  # softplus gives 1: it begins as the plain distance

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor, clock: Clock) -> Tensor:
        """Embeddings (N, D) of both models; returns a scalar."""
        if self.variance is None:
            raise RuntimeError("PAD has no predictor yet: call prepare(student, teacher) first")
        ours, theirs = self.pair(student, teacher)
        distances = (ours - theirs).square().mean(dim=1)
        if clock.epoch < self.warmup_epochs:
            return distances.mean()
        scale = full_precision(self.variance(self.raw(student))).squeeze(1)
        variance = F.softplus(scale) + SMALLEST_VARIANCE
        return (distances / variance + torch.log(variance)).mean()
