"""Logarithm of a feature distance (SRD: Miles & Mikolajczyk 2024, arXiv:2303.11098): a simple recipe for projectors.

A linear projector with BatchNorm, a high power that lets large errors count, and a logarithm that keeps them from
drowning the rest.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.inputs import full_precision, paired_features
from kd_lightning.outputs import ModelOutput

SMALLEST = 1e-12  # of the sum whose logarithm is taken: equal features would give minus infinity


class LogarithmicFeatureLoss(nn.Module):
    """``loss = 2 log sum |P(f_s) - f_t|^exponent``, over samples and dimensions; not bounded below.

    Args:
        tap: for both models; maps are averaged to vectors.
        exponent: > 0; the paper uses 4.
        adapter: False compares the features as they are; else a linear map and BatchNorm, on both sides as in the
            paper (the teacher's BatchNorm has no weights).
    """

    takes_mixed = True
    requires = frozenset({"features"})

    def __init__(self, tap: str = "hint", exponent: float = 4.0, adapter: bool = True) -> None:
        super().__init__()
        if not exponent > 0:
            raise UserError(f"exponent must be > 0, got {exponent}")
        self.tap, self.exponent = tap, float(exponent)
        self.adapter: nn.Module | None = None if adapter else nn.Identity()
        self.standardiser: nn.Module = nn.Identity()

    def prepare(self, student: ModelOutput, teacher: ModelOutput) -> None:
        """Build the projector for the shapes of these features; a second call changes nothing."""
        if self.adapter is None:
            guided, hint = self._vectors(student, teacher)
            width = hint.shape[1]
            self.adapter = nn.Sequential(nn.Linear(guided.shape[1], width), nn.BatchNorm1d(width)).to(guided.device)
            self.standardiser = nn.BatchNorm1d(width, affine=False).to(guided.device)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Features (N, D) or (N, C, H, W) under the tap's name; returns a scalar."""
        if self.adapter is None:
            raise RuntimeError("LogarithmicFeatureLoss has no projector yet: call prepare(student, teacher) first")
        guided, hint = self._vectors(student, teacher)
        guided, hint = full_precision(self.adapter(guided)), full_precision(self.standardiser(hint)).detach()
        if guided.shape != hint.shape:
            raise UserError(
                f"tap {self.tap!r}: {tuple(guided.shape)} does not fit {tuple(hint.shape)}: set adapter: true"
            )
        total = (guided - hint).abs().pow(self.exponent).sum()
        return 2 * torch.log(total.clamp(min=SMALLEST))

    def _vectors(self, student: ModelOutput, teacher: ModelOutput) -> tuple[Tensor, Tensor]:
        guided, hint = paired_features(student, teacher, self.tap)
        pooled = [values.mean(dim=(2, 3)) if values.ndim == 4 else values.flatten(1) for values in (guided, hint)]
        return pooled[0], pooled[1]
