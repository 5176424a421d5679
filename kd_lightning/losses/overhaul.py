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
from kd_lightning.losses.inputs import full_precision, paired_features, paired_maps
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

    A channel's margin comes from the mean and deviation of the teacher's responses, as running averages over the
    training batches. (The authors read them off the teacher's BatchNorm, which promises the same for its own layer.)

    Args:
        taps: names from shallow to deep, the same for both models.
        adapter: False compares the maps as they are.
        momentum: of the running averages, in (0, 1].
    """

    takes_mixed = True
    requires = frozenset({"features"})
    mean: Tensor
    deviation: Tensor

    def __init__(self, taps: Sequence[str], adapter: bool = True, momentum: float = 0.1) -> None:
        super().__init__()
        if not taps:
            raise UserError("OverhaulLoss needs at least one tap: set taps to names from method.taps.student")
        if not 0 < momentum <= 1:
            raise UserError(f"momentum must be in (0, 1], got {momentum}")
        self.taps, self.momentum = list(taps), float(momentum)
        self.adapters: nn.ModuleList | None = nn.ModuleList() if adapter else None
        self.register_buffer("mean", torch.zeros(0))
        self.register_buffer("deviation", torch.zeros(0))

    def prepare(self, student: ModelOutput, teacher: ModelOutput) -> None:
        """Build the adapters, and begin the averages with these maps; a second call changes nothing."""
        if len(self.mean):
            return
        pairs = [paired_maps(student, teacher, tap, "OFD") for tap in self.taps]
        for guided, hint in pairs:
            if self.adapters is not None:
                adapter = nn.Sequential(
                    nn.Conv2d(guided.shape[1], hint.shape[1], 1, bias=False), nn.BatchNorm2d(hint.shape[1])
                )
                self.adapters.append(adapter.to(guided.device))
        self.mean, self.deviation = (
            torch.cat([moment(hint) for _, hint in pairs]).float() for moment in (_mean, _deviation)
        )

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Maps (N, C, H, W) under each tap's name; returns a scalar >= 0."""
        if not len(self.mean):
            raise RuntimeError("OverhaulLoss has no margins yet: call prepare(student, teacher) with examples first")
        pairs = [paired_features(student, teacher, tap) for tap in self.taps]
        if self.training:
            for kept, moment in ((self.mean, _mean), (self.deviation, _deviation)):
                kept.lerp_(torch.cat([moment(hint) for _, hint in pairs]).to(kept), self.momentum)
        margins = negative_mean(self.mean, self.deviation).split([hint.shape[1] for _, hint in pairs])
        losses = []
        for k, ((guided, hint), margin) in enumerate(zip(pairs, margins, strict=True)):
            if self.adapters is not None:
                guided = full_precision(self.adapters[k](guided))
            guided, hint = of_equal_size(guided, hint)
            distance = partial_distance(guided, hint, margin.to(hint.dtype)[None, :, None, None])
            losses.append(distance.sum() / len(guided) * 2.0 ** (k - len(self.taps) + 1))
        return torch.stack(losses).sum()


def _mean(maps: Tensor) -> Tensor:
    return maps.mean(dim=(0, 2, 3))


def _deviation(maps: Tensor) -> Tensor:
    return maps.std(dim=(0, 2, 3)).clamp(min=1e-6)
