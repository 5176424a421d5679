"""Pearson distillation (PKD: Cao et al. 2022, arXiv:2207.02039): maps up to each channel's mean and size."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.adapters import adapter_between, of_equal_size
from kd_lightning.losses.inputs import full_precision, paired_features
from kd_lightning.outputs import ModelOutput

EPSILON = 1e-6  # added to the standard deviation, as the authors do


def standardised_channels(maps: Tensor) -> Tensor:
    """Each channel minus its mean over batch and positions, over its standard deviation: (N, C, ...) unchanged in shape."""
    rows = maps.transpose(0, 1).flatten(1)
    rows = (rows - rows.mean(dim=1, keepdim=True)) / (rows.std(dim=1, keepdim=True) + EPSILON)
    return rows.unflatten(1, (maps.shape[0], *maps.shape[2:])).transpose(0, 1)


class PearsonMapLoss(nn.Module):
    """Half the mean squared difference of standardised maps: ``1 - r``, r the correlation of the channels.

    Args:
        tap: for both models; maps (N, C, H, W) or vectors (N, D).
        adapter: map the student's channels to the teacher's where they differ.
    """

    takes_mixed = True
    requires = frozenset({"features"})

    def __init__(self, tap: str = "hint", adapter: bool = True) -> None:
        super().__init__()
        self.tap, self._adapt = tap, adapter
        self.adapter: nn.Module = nn.Identity()

    def prepare(self, student: ModelOutput, teacher: ModelOutput) -> None:
        """Build the adapter where the numbers of channels differ; a second call changes nothing."""
        guided, hint = paired_features(student, teacher, self.tap)
        if self._adapt and guided.shape[1] != hint.shape[1] and isinstance(self.adapter, nn.Identity):
            self.adapter = adapter_between(guided, hint, batch_norm=False, relu=False)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Features under the tap's name; returns a scalar >= 0."""
        guided, hint = paired_features(student, teacher, self.tap)
        guided, hint = of_equal_size(full_precision(self.adapter(guided)), hint)
        if guided.shape != hint.shape:
            raise UserError(f"tap {self.tap!r}: {tuple(guided.shape)} does not fit {tuple(hint.shape)}")
        return F.mse_loss(standardised_channels(guided), standardised_channels(hint)) / 2
