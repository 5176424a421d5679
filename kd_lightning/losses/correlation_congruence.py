"""Correlation congruence (CC: Peng et al. 2019, arXiv:1904.01802): match a kernel between the samples of a batch."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.inputs import exactly, paired_features
from kd_lightning.outputs import ModelOutput

KERNELS = ("gaussian", "bilinear", "none")


class CorrelationCongruenceLoss(nn.Module):
    """Mean squared difference of Gaussian kernel matrices, each expanded into a Taylor series.

    ``loss = mean_ij ( K_ij(student) - K_ij(teacher) )^2`` with ``K_ij = exp(-2 gamma) * sum_{p <= P} (2 gamma
    x_i.x_j)^p / p!`` of features of length 1. Of the published codes this follows those with the paper's kernel;
    RepDistiller has none and multiplies differences of neighbouring samples.

    Args:
        tap: name of the tap, for both models; usually the vector before the classifier.
        gamma: sharpness of the Gaussian, > 0.
        order: highest power P of the series, >= 1.
        kernel: "gaussian"; "bilinear", ``K_ij = f_i f_j`` of the features as they are; or "none", RepDistiller's
            ``mean_i sum_d |e_id e_(i+1)d|`` of the differences ``e = f(student) - f(teacher)`` of equal lengths.
        normalise: give features the length 1 in the Gaussian kernel.
        form: "mean_square", or torchdistill's "norm": ``|K(student) - K(teacher)|_F / N^2``, with ``normalise: false``.
    """

    takes_mixed = True
    requires = frozenset({"features"})

    def __init__(
        self,
        tap: str = "embedding",
        gamma: float = 0.4,
        order: int = 2,
        kernel: str = "gaussian",
        normalise: bool = True,
        form: str = "mean_square",
    ) -> None:
        super().__init__()
        if kernel not in KERNELS:
            raise UserError(f"kernel of correlation congruence must be one of {', '.join(KERNELS)}, got {kernel!r}")
        if form not in ("mean_square", "norm"):
            raise UserError(f"form of correlation congruence must be mean_square or norm, got {form!r}")
        self.kind, self.normalise, self.form = kernel, normalise, form
        if not gamma > 0:
            raise UserError(f"gamma of correlation congruence must be > 0, got {gamma}")
        if order < 1:
            raise UserError(f"order of correlation congruence must be >= 1, got {order}")
        self.tap = tap
        self.gamma = gamma
        self.order = order

    def kernel(self, features: Tensor) -> Tensor:
        """Features (N, ...) give (N, N)."""
        if self.kind == "bilinear":
            return features.flatten(1) @ features.flatten(1).T
        rows = F.normalize(features.flatten(1), dim=1) if self.normalise else features.flatten(1)
        exponent = 2 * self.gamma * (rows @ rows.T)
        series = torch.ones_like(exponent)
        for power in range(1, self.order + 1):
            series = series + exponent**power / math.factorial(power)
        return math.exp(-2 * self.gamma) * series

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Features (N, ...) under the tap's name; returns a scalar >= 0."""
        with exactly(student.logits):
            student_features, teacher_features = paired_features(student, teacher, self.tap)
            if self.kind == "none":
                error = (student_features - teacher_features).flatten(1).abs()
                return (error[:-1] * error[1:]).sum(dim=1).mean() if len(error) > 1 else error.sum() * 0.0
            ours, theirs = self.kernel(student_features), self.kernel(teacher_features)
            if self.form == "norm":
                squared = (ours - theirs).square().sum()  # the root has no gradient at 0
                return torch.where(squared > 0, squared, 1.0).sqrt() * (squared > 0) / len(ours) ** 2
            return F.mse_loss(ours, theirs)
