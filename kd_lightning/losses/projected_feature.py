"""Feature matching for a student that ends in its teacher's classifier (SimKD: Chen et al. 2022, arXiv:2203.14001).

The projector belongs to the student (:mod:`kd_lightning.models.teacher_classifier`): here is only the distance.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.adapters import of_equal_size
from kd_lightning.losses.inputs import paired_features
from kd_lightning.outputs import ModelOutput


class ProjectedFeatureLoss(nn.Module):
    """Mean squared distance between the student's projected feature and the teacher's, eq. 3.

    ``loss = mean (P(f_s) - f_t)^2``: f_t the teacher's last feature before its classifier. Of two maps the larger is
    averaged down; a map beside a vector is averaged whole.

    Args:
        tap: of the projected feature in the student and the last one in the teacher.
    """

    takes_mixed = True
    requires = frozenset({"features"})

    def __init__(self, tap: str = "last") -> None:
        super().__init__()
        self.tap = tap

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Features (N, C) or (N, C, H, W) under the tap's name; returns a scalar >= 0."""
        ours, theirs = paired_features(student, teacher, self.tap)
        if ours.ndim != theirs.ndim:
            ours, theirs = (x.flatten(2).mean(dim=2) if x.ndim == 4 else x for x in (ours, theirs))
        ours, theirs = of_equal_size(ours, theirs)
        if ours.shape != theirs.shape:
            raise UserError(
                f"tap {self.tap!r}: the projected feature is {tuple(ours.shape)}, the teacher's {tuple(theirs.shape)}: "
                "tap what goes into the teacher's classifier (LAYER:input), or the map before the mean"
            )
        return F.mse_loss(ours, theirs)
