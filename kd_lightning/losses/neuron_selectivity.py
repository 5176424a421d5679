"""Neuron selectivity transfer (NST: Huang & Wang 2017, arXiv:1707.01219): match what channels respond to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.adapters import of_equal_size
from kd_lightning.losses.inputs import exactly, paired_maps
from kd_lightning.outputs import ModelOutput


class NeuronSelectivityLoss(nn.Module):
    """Maximum mean discrepancy between the models' channels with the kernel ``k(a, b) = (a . b)^2``, summed over taps.

    Each channel of a map is a point: its activations over the positions, of length 1. ``loss = mean k(s, s) + mean
    k(t, t) - 2 mean k(s, t)`` over samples and pairs of channels, so the numbers of channels may differ. The usual
    weight is 50.

    Args:
        taps: names of the taps to compare, the same for both models; their layers give maps.
    """

    takes_mixed = True
    requires = frozenset({"features"})

    def __init__(self, taps: Sequence[str]) -> None:
        super().__init__()
        if not taps:
            raise UserError("NeuronSelectivityLoss needs at least one tap: set taps to names from method.taps.student")
        self.taps = list(taps)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Features (N, C, H, W) under each tap's name, any C; returns a scalar."""
        losses = []
        with exactly(student.logits):
            for tap in self.taps:
                student_maps, teacher_maps = of_equal_size(*paired_maps(student, teacher, tap))
                student_points = F.normalize(student_maps.flatten(2), dim=2)
                teacher_points = F.normalize(teacher_maps.flatten(2), dim=2)
                same = _mean_kernel(student_points, student_points) + _mean_kernel(teacher_points, teacher_points)
                losses.append(same - 2 * _mean_kernel(student_points, teacher_points))
        return torch.stack(losses).sum()


def _mean_kernel(one: Tensor, other: Tensor) -> Tensor:
    return (one @ other.transpose(1, 2)).square().mean()
