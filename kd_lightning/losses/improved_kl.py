"""Improved and generalised KL (IKL: Cui et al. 2023, arXiv:2305.13948; GKL: Cui et al. 2025, arXiv:2503.08038).

The KL divergence's gradient is that of a weighted square of logit differences plus a soft cross-entropy. IKL lets the
student's side of the first part take part, and may take the weights from class averages instead of single samples,
which are wrong now and then. The authors' alpha and beta are the weights of the two terms.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.batch import UNLABELLED
from kd_lightning.errors import UserError
from kd_lightning.joints import Clock
from kd_lightning.losses.classes import class_numbers
from kd_lightning.losses.inputs import checked_temperature, paired_logits, require_rows
from kd_lightning.outputs import ModelOutput


class LogitDifferenceLoss(nn.Module):
    """Squared differences of the classes' logit differences, weighed by the probability of both classes.

    ``loss = mean_i sum_jk w_ij w_ik (dt_ijk - ds_ijk)^2 / 4`` with ``d_ijk = z_ij - z_ik`` (logits as they are) and
    ``w_i = softmax(t_i / T)^gamma``. GKL (``normalise``) divides by ``sum_i sum_jk w_ij w_ik`` instead of N.

    Args:
        temperature: of the weights, T > 0.
        class_prior: weights are the true class's: the mean of ``softmax(t / T)`` over the samples of a class in the
            epoch before; in the first epoch, of unlabelled samples and of classes not met, the sample's own. Needs
            labels, and the clock.
        gamma: exponent of the weights, > 0; 1 for IKL.
        normalise: divide by the sum of the weights (GKL).
    """

    def __init__(
        self, temperature: float = 1.0, class_prior: bool = False, gamma: float = 1.0, normalise: bool = False
    ) -> None:
        super().__init__()
        if not gamma > 0:
            raise UserError(f"gamma must be > 0, got {gamma}")
        self.temperature = checked_temperature(temperature)
        self.class_prior, self.gamma, self.normalise = class_prior, float(gamma), normalise
        self.register_buffer("prior", None)
        self.register_buffer("collected", None)
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))

    prior: Tensor | None
    collected: Tensor | None
    epoch: Tensor

    def prepare(self, student: ModelOutput, teacher: ModelOutput) -> None:
        """Make room for the class averages; a second call changes nothing."""
        if self.class_prior and self.prior is None:
            classes = teacher.logits.shape[1]
            self.prior, self.collected = (teacher.logits.new_zeros(classes, classes, dtype=torch.float32) for _ in "pc")

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor, clock: Clock | None = None) -> Tensor:
        """Logits of shape (N, C), target of shape (N,); returns a scalar >= 0."""
        require_rows(student.logits, "the improved KL divergence")
        student_logits, teacher_logits = paired_logits(student, teacher)
        weights = (teacher_logits / self.temperature).softmax(dim=1)
        if self.class_prior and self.prior is not None:
            weights = self._of_class(weights, class_numbers(target), clock)
        weights = weights**self.gamma
        error = teacher_logits - student_logits
        # sum_jk w_j w_k (e_j - e_k)^2 = 2 (sum w e^2 sum w - (sum w e)^2), without the (N, C, C) differences
        total = weights.sum(dim=1)
        center = (weights * error).sum(dim=1, keepdim=True) / total[:, None]
        squares = (weights * (error - center).square()).sum(dim=1) * total
        return squares.sum() / 2 / (total.square().sum() if self.normalise else len(squares))

    @torch.no_grad()
    def _of_class(self, weights: Tensor, target: Tensor, clock: Clock | None) -> Tensor:
        """The class's average of the epoch before in place of each sample's own weights; collects this epoch's."""
        assert self.prior is not None
        assert self.collected is not None
        if clock is not None and clock.epoch != int(self.epoch):
            self.prior.copy_(F.normalize(self.collected, p=1, dim=1))
            self.collected.zero_()
            self.epoch.fill_(clock.epoch)
        labelled = target != UNLABELLED
        self.collected.index_add_(0, target[labelled], weights[labelled].to(self.collected.dtype))
        rows = self.prior[target.clamp(min=0)].to(weights.dtype)
        known = labelled & (rows.sum(dim=1) > 0)
        return torch.where(known[:, None], rows, weights)


class SoftCrossEntropyLoss(nn.Module):
    """Cross-entropy with the teacher's probabilities: ``loss = -mean_i sum_c p_ic(t / T) log p_ic(s / T)``.

    Soft targets but for the teacher's entropy, which has no gradient, and without the factor T^2.

    Args:
        temperature: softening T, > 0.
    """

    takes_mixed = True

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = checked_temperature(temperature)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Logits of shape (N, C) or (N, C, ...); returns a scalar >= 0."""
        student_logits, teacher_logits = paired_logits(student, teacher)
        log = F.log_softmax(student_logits / self.temperature, dim=1)
        return -((teacher_logits / self.temperature).softmax(dim=1) * log).sum(dim=1).mean()
