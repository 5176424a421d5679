"""Masked generative distillation (MGD: Yang et al. 2022, arXiv:2205.01529): rebuild the teacher's map from a part."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.adapters import of_equal_size
from kd_lightning.losses.inputs import full_precision, paired_features, paired_maps
from kd_lightning.outputs import ModelOutput


class MaskedGenerationLoss(nn.Module):
    """Squared error of the teacher's map, generated from the student's with channels or positions masked.

    ``loss = sum ( G(mask * A(f_s)) - f_t )^2 / N``: A aligns the channels by a 1x1 convolution, G is two 3x3
    convolutions with a ReLU between. Drawn anew for each sample, from the run's own stream of random numbers. The
    authors' weight is 7e-5 for classification with ``over="channels"``, 2e-5 with positions for dense prediction.

    Args:
        tap: for both models; maps (N, C, H, W).
        masked: share that is masked, in [0, 1).
        over: "channels" or "positions".
    """

    takes_mixed = True
    requires = frozenset({"features"})

    def __init__(self, tap: str = "hint", masked: float = 0.15, over: str = "channels") -> None:
        super().__init__()
        if not 0 <= masked < 1:
            raise UserError(f"masked must be in [0, 1), got {masked}")
        if over not in ("channels", "positions"):
            raise UserError(f"over must be channels or positions, got {over!r}")
        self.tap, self.masked, self.over = tap, float(masked), over
        self.align: nn.Module | None = None
        self.generation: nn.Module | None = None

    def prepare(self, student: ModelOutput, teacher: ModelOutput) -> None:
        """Build both networks for the shapes of these features; a second call changes nothing."""
        if self.generation is None:
            guided, hint = paired_maps(student, teacher, self.tap, "masked generation")
            width = hint.shape[1]
            same = guided.shape[1] == width
            self.align = nn.Identity() if same else nn.Conv2d(guided.shape[1], width, 1).to(guided.device)
            self.generation = nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
            ).to(guided.device)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Maps (N, C, H, W) under the tap's name; returns a scalar >= 0."""
        if self.align is None or self.generation is None:
            raise RuntimeError("MaskedGenerationLoss has no networks yet: call prepare(student, teacher) first")
        guided, hint = of_equal_size(*paired_features(student, teacher, self.tap))
        aligned = self.align(guided)
        n, channels, height, width = aligned.shape
        shape = (n, channels, 1, 1) if self.over == "channels" else (n, 1, height, width)
        kept = torch.rand(shape, device=aligned.device) >= self.masked
        generated = full_precision(self.generation(aligned * kept))
        return (generated - hint).square().sum() / n
