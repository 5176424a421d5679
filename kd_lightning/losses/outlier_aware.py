"""Regression that uses the teacher to tell wrong labels (after Takamoto, Morishita & Imaoka 2020, arXiv:2002.12597).

Their teacher outlier rejection takes a label for an outlier where it lies far from the teacher's prediction, and keeps its
error from the loss. The student then has the teacher's values there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.joints import VALUES
from kd_lightning.losses.values import value_triple
from kd_lightning.outputs import ModelOutput

MAD = 1.4826
"""A normal distribution's standard deviation over its median absolute deviation."""


class OutlierAwareLoss(nn.Module):
    """Each value's target is the label where label and teacher agree, else the teacher's prediction.

    ``loss = mean (s - r)^2,  r = y  if |y - t| <= threshold * scale,  else t``. ``scale`` is the batch's robust standard
    deviation of ``y - t`` (1.4826 times the median of its absolute values), as an average over steps. Values without a
    label have the teacher's. It takes the task's loss's place: give ``weights.task`` 0.

    Where it leaves the paper: the rule is by a robust scale instead of a constant in the target's units, which would have
    to be known beforehand; and the second output head, which learns the teacher's values beside the labels, is left to
    another term (``mse``).

    Args:
        threshold: > 0.
        momentum: of the scale's average, in [0, 1): the share that the past keeps.
    """

    requires = frozenset({VALUES})
    scale: Tensor
    steps: Tensor

    def __init__(self, threshold: float = 3.0, momentum: float = 0.9) -> None:
        super().__init__()
        if not threshold > 0 or not 0 <= momentum < 1:
            raise UserError(f"need threshold > 0 and momentum in [0, 1), got {threshold} and {momentum}")
        self.threshold, self.momentum = threshold, momentum
        self.register_buffer("scale", torch.tensor(0.0))
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Predictions (N, D) of both models, target (N, D), nan where it is not known; returns a scalar >= 0."""
        values = value_triple(student, teacher, target)
        gaps = (values.target - values.teacher).abs()
        if self.training:
            self._see(gaps, values.known)
        trusted = values.known & (gaps <= self.threshold * self.scale)
        return (values.student - torch.where(trusted, values.target, values.teacher)).square().mean()

    def _see(self, gaps: Tensor, known: Tensor) -> None:
        """Add the batch's scale to the average; a batch without labels adds nothing."""
        median = torch.where(known, gaps, torch.nan).nanmedian().to(self.scale)
        seen = ~median.isnan()
        momentum = torch.where(self.steps > 0, self.momentum, 0.0)
        moved = momentum * self.scale + (1 - momentum) * MAD * torch.nan_to_num(median)
        self.scale.copy_(torch.where(seen, moved, self.scale))
        self.steps.add_(seen.to(self.steps.dtype))
