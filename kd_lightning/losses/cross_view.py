"""Cross-view consistency (CRLD: Zhang et al. 2024, arXiv:2412.16493): soft targets within and across two views.

The same pictures are shown twice. Each model's answer to one view is compared with the teacher's to the same view and
to the other one, where the teacher is confident. The second view is the first of ``Batch.also`` (``data.extra_views``).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.classes import mean_over_labelled
from kd_lightning.losses.inputs import checked_temperature, full_precision, paired_logits
from kd_lightning.losses.soft_target import softened_divergence
from kd_lightning.outputs import ModelOutput

Views = Sequence[tuple[ModelOutput, ModelOutput]]


def other_view(views: Views) -> tuple[ModelOutput, ModelOutput]:
    """Outputs of (student, teacher) for the second view."""
    if not views:
        raise UserError("a two-view loss needs a second view of each sample: set data.extra_views=1")
    return views[0]


class WithinViewLoss(nn.Module):
    """Soft targets in both views, of samples of whose first view the teacher is confident.

    ``loss = mean_i [max_c p_ic(t_1) >= threshold] (KL_i(t_1, s_1) + KL_i(t_2, s_2)) T^2``, confidence at T = 1.

    Args:
        temperature: softening T, > 0.
        threshold: of the confidence; 0 keeps all samples.
    """

    def __init__(self, temperature: float = 4.0, threshold: float = 0.9) -> None:
        super().__init__()
        self.temperature, self.threshold = checked_temperature(temperature), float(threshold)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor, views: Views) -> Tensor:
        """Logits of shape (N, C) in each view; returns a scalar >= 0."""
        first, second = paired_logits(student, teacher), paired_logits(*other_view(views))
        confident = first[1].softmax(dim=1).amax(dim=1) >= self.threshold
        losses = [softened_divergence(ours, theirs, self.temperature) for ours, theirs in (first, second)]
        return ((losses[0] + losses[1]) * confident).mean()


class AcrossViewsLoss(nn.Module):
    """Soft targets between the views, of samples of whose second view the teacher is confident.

    ``loss = mean_i [max_c p_ic(t_2) >= threshold] (KL_i(t_1, s_2) + KL_i(t_2, s_1)) T^2``, confidence at T = 1.

    Args:
        temperature: softening T, > 0.
        threshold: of the confidence; 0 keeps all samples.
    """

    def __init__(self, temperature: float = 4.0, threshold: float = 0.2) -> None:
        super().__init__()
        self.temperature, self.threshold = checked_temperature(temperature), float(threshold)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor, views: Views) -> Tensor:
        """Logits of shape (N, C) in each view; returns a scalar >= 0."""
        (ours, theirs), (ours_2, theirs_2) = paired_logits(student, teacher), paired_logits(*other_view(views))
        confident = theirs_2.softmax(dim=1).amax(dim=1) >= self.threshold
        losses = softened_divergence(ours_2, theirs, self.temperature)
        losses = losses + softened_divergence(ours, theirs_2, self.temperature)
        return (losses * confident).mean()


class SecondViewTaskLoss(nn.Module):
    """Cross-entropy with the labels in the second view: the task's own loss sees the first."""

    needs_teacher = False

    def forward(self, student: ModelOutput, teacher: ModelOutput | None, target: Tensor, views: Views) -> Tensor:
        """Logits of shape (N, C), target of shape (N,); unlabelled samples are left out."""
        logits = full_precision(other_view(views)[0].logits)
        losses = F.cross_entropy(logits, target.clamp(min=0), reduction="none")
        return mean_over_labelled(losses, target)
