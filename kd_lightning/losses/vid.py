"""Variational information distillation (VID: Ahn et al. 2019, arXiv:1904.05835): keep what the teacher's layer tells.

The student's layer predicts the teacher's as a Gaussian whose mean is learned per position and whose variance is
learned per channel. Maximising that likelihood raises a lower bound of the mutual information of the two layers;
channels that cannot be predicted get a large variance and stop to matter.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.adapters import of_equal_size
from kd_lightning.losses.inputs import full_precision, paired_features, paired_maps
from kd_lightning.outputs import ModelOutput

SMALLEST_VARIANCE = 1e-5


class VariationalInformationLoss(nn.Module):
    """Negative log-likelihood of the teacher's map under a Gaussian predicted from the student's.

    ``loss = mean ( (mean(f_s) - f_t)^2 / variance_c + log variance_c ) / 2`` over samples, channels and positions, with
    ``variance_c = softplus(scale_c) + 1e-5``. The mean comes from three 1x1 convolutions with ReLUs between. Both are
    built by :meth:`prepare`, trained with the student, and not part of the exported student.

    Args:
        tap: name of the tap, for both models; its layers give maps (N, C, H, W), the larger averaged to the smaller.
        initial_variance: of every channel, > 1e-5.
    """

    takes_mixed = True
    requires = frozenset({"features"})

    def __init__(self, tap: str = "maps", initial_variance: float = 5.0) -> None:
        super().__init__()
        if not initial_variance > SMALLEST_VARIANCE:
            raise UserError(f"initial_variance must be > {SMALLEST_VARIANCE}, got {initial_variance}")
        self.tap = tap
        self.mean: nn.Module | None = None
        self.scale: nn.Parameter | None = None
        self._initial_variance = initial_variance

    def prepare(self, student: ModelOutput, teacher: ModelOutput) -> None:
        """Build the predictor for the shapes of these features; a second call changes nothing."""
        if self.mean is not None:
            return
        student_maps, teacher_maps = paired_maps(student, teacher, self.tap, "VID")
        channels = teacher_maps.shape[1]
        self.mean = nn.Sequential(
            nn.Conv2d(student_maps.shape[1], channels, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1, bias=False),
        ).to(student_maps.device)
        scale = math.log(math.expm1(self._initial_variance - SMALLEST_VARIANCE))  # the inverse of softplus
        self.scale = nn.Parameter(torch.full((channels,), scale, device=student_maps.device))

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Features (N, C, H, W) under the tap's name; returns a scalar."""
        if self.mean is None or self.scale is None:
            raise RuntimeError("VID has no predictor yet: call prepare(student, teacher) with example outputs first")
        student_maps, teacher_maps = of_equal_size(*paired_features(student, teacher, self.tap))
        mean = full_precision(self.mean(student_maps))
        variance = (F.softplus(self.scale) + SMALLEST_VARIANCE)[:, None, None]
        return ((mean - teacher_maps).square() / variance + variance.log()).mean() / 2
