"""Overhaul of feature distillation (OFD: Heo et al. 2019, arXiv:1904.01866): the teacher's response with a margin.

Taken before the ReLU, positive responses are to be matched, negative ones only to be negative enough: below a margin
for each channel, the mean of the negative half of the Gaussian that the layer's BatchNorm promises.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.adapters import of_equal_size
from kd_lightning.losses.inputs import full_precision, paired_features
from kd_lightning.outputs import ModelOutput

SMALLEST = 1e-3  # of the probability of a negative response: below, the margin is -3 standard deviations


def negative_mean(mean: Tensor, deviation: Tensor) -> Tensor:
    """Mean of a Gaussian's negative part, by channel: ``E[x | x < 0]``, x with these means and deviations."""
    deviation = deviation.abs().double()
    ratio = -mean.double() / deviation
    below = torch.special.ndtr(ratio)
    density = (-ratio.square() / 2).exp() / math.sqrt(2 * math.pi)
    margin = mean.double() - deviation * density / below.clamp(min=1e-30)
    return torch.where(below > SMALLEST, margin, -3 * deviation).to(mean.dtype)


def partial_distance(student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:
    """Squared difference to ``max(t, m)``, without what is negative enough already; element by element.

    Nothing is asked where the teacher's margin-limited response is not positive and the student's is below it.
    """
    limited = torch.maximum(teacher, margin)
    asked = (student > limited) | (limited > 0)
    return (student - limited).square() * asked


class OverhaulLoss(nn.Module):
    """Partial distance of the adapted maps, summed over numbers and averaged over samples.

    ``loss = sum_k w_k sum partial_distance / N``, ``w_k = 2^(k - K + 1)`` for the k-th of K taps. The student's maps go
    through a 1x1 convolution with BatchNorm. Tap the layers before their ReLU. The authors' weight is 1e-3.

    Args:
        taps: names from shallow to deep, the same for both models.
        adapter: False compares the maps as they are.
    """

    requires = frozenset({"features"})

    def __init__(self, taps: Sequence[str], adapter: bool = True) -> None:
        super().__init__()
        if not taps:
            raise UserError("OverhaulLoss needs at least one tap: set taps to names from method.taps.student")
        self.taps = list(taps)
        self.adapters: nn.ModuleList | None = nn.ModuleList() if adapter else None
        self.register_buffer("margins", None)

    margins: Tensor | None

    def bind(self, student_model: nn.Module, teacher_model: nn.Module) -> None:
        """Nothing is taken from the models: margins come from the teacher's maps where no BatchNorm is known."""

    def prepare(self, student: ModelOutput, teacher: ModelOutput) -> None:
        """Build the adapters, and the margins from the teacher's maps; a second call changes nothing."""
        if self.margins is not None:
            return
        rows = []
        for tap in self.taps:
            guided, hint = paired_features(student, teacher, tap)
            if self.adapters is not None:
                adapter = nn.Sequential(
                    nn.Conv2d(guided.shape[1], hint.shape[1], 1, bias=False), nn.BatchNorm2d(hint.shape[1])
                )
                self.adapters.append(adapter.to(guided.device))
            rows.append(negative_mean(hint.mean(dim=(0, 2, 3)), hint.std(dim=(0, 2, 3)).clamp(min=1e-6)))
        self.margins = torch.cat(rows)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Maps (N, C, H, W) under each tap's name; returns a scalar >= 0."""
        if self.margins is None:
            raise RuntimeError("OverhaulLoss has no margins yet: call prepare(student, teacher) with examples first")
        losses, start = [], 0
        for k, tap in enumerate(self.taps):
            guided, hint = paired_features(student, teacher, tap)
            if self.adapters is not None:
                guided = full_precision(self.adapters[k](guided))
            guided, hint = of_equal_size(guided, hint)
            margin = self.margins[start : start + hint.shape[1]].to(hint.dtype)[None, :, None, None]
            start += hint.shape[1]
            loss = partial_distance(guided, hint, margin).sum() / len(guided)
            losses.append(loss * 2.0 ** (k - len(self.taps) + 1))
        return torch.stack(losses).sum()
