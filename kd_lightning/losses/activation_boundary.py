"""Activation boundaries (AB: Heo et al. 2019, arXiv:1811.03233): which neurons fire, not how strongly.

A teacher's response before its ReLU tells on which side of the boundary a sample lies. The student's must lie on the
same side with a margin; how far beyond does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.adapters import of_equal_size
from kd_lightning.losses.inputs import full_precision, paired_maps
from kd_lightning.outputs import ModelOutput


def boundary_loss(student: Tensor, teacher: Tensor, margin: float) -> Tensor:
    """Squared distance to the margin on the teacher's side, where the student is not beyond it; element by element.

    ``(s + m)^2`` where the teacher does not fire (t <= 0) and ``s > -m``; ``(s - m)^2`` where it fires and ``s <= m``.
    """
    too_high = (student > -margin) & (teacher <= 0)
    too_low = (student <= margin) & (teacher > 0)
    return (student + margin).square() * too_high + (student - margin).square() * too_low


class ActivationBoundaryLoss(nn.Module):
    """Distance to the teacher's activation boundary, summed over numbers and taps.

    ``loss = sum_k w_k sum boundary_loss / N`` with ``w_k = 2^(k - K + 1)``: the deepest tap of K counts whole, each
    before it half as much as the next. Tap the layers before their ReLU. The paper trains this alone first, then
    without it; a weight schedule does the same (``method.weights.boundary``). The authors multiply by 3 / 1000.

    Args:
        taps: names from shallow to deep, the same for both models; layers that give maps.
        margin: m, > 0.
        adapter: map the student's channels by a 1x1 convolution with BatchNorm.
    """

    takes_mixed = True
    requires = frozenset({"features"})

    def __init__(self, taps: Sequence[str], margin: float = 1.0, adapter: bool = True) -> None:
        super().__init__()
        if not taps:
            raise UserError("ActivationBoundaryLoss needs at least one tap: set taps to names from method.taps.student")
        if not margin > 0:
            raise UserError(f"margin must be > 0, got {margin}")
        self.taps, self.margin = list(taps), float(margin)
        self.adapters: nn.ModuleList | None = nn.ModuleList() if adapter else None

    def prepare(self, student: ModelOutput, teacher: ModelOutput) -> None:
        """Build the adapters for the shapes of these features; a second call changes nothing."""
        if self.adapters is None or len(self.adapters):
            return
        for tap in self.taps:
            guided, hint = paired_maps(student, teacher, tap)
            adapter = nn.Sequential(nn.Conv2d(guided.shape[1], hint.shape[1], 1), nn.BatchNorm2d(hint.shape[1]))
            self.adapters.append(adapter.to(guided.device))

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Maps (N, C, H, W) under each tap's name; returns a scalar >= 0."""
        losses = []
        for k, tap in enumerate(self.taps):
            guided, hint = paired_maps(student, teacher, tap)
            if self.adapters is not None:
                guided = full_precision(self.adapters[k](guided))
            guided, hint = of_equal_size(guided, hint)
            loss = boundary_loss(guided, hint, self.margin).sum() / len(guided)
            losses.append(loss * 2.0 ** (k - len(self.taps) + 1))
        return torch.stack(losses).sum()
