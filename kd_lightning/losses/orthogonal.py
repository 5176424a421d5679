"""Orthogonal projection (VkD: Miles et al. 2024, arXiv:2403.06213): a projector that cannot do the student's work."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from kd_lightning.errors import UserError
from kd_lightning.losses.inputs import full_precision, paired_features
from kd_lightning.outputs import ModelOutput


class OrthogonalFeatureLoss(nn.Module):
    """Smooth L1 distance of the student's feature, projected with orthonormal rows or columns, to the standardised hint.

    ``loss = smooth_l1( P mean(f_s), LN(mean(f_t)) )``: means over tokens or positions, LN a layer norm without weights.
    P's weight is orthogonal by construction (torch's parametrisation). Weight decay acts on what it is made from: a
    strong one collapses it, so keep the decay of this parameter at 0.

    Args:
        tap: for both models; tokens (N, L, D), maps (N, C, H, W) or vectors (N, D).
    """

    takes_mixed = True
    requires = frozenset({"features"})

    def __init__(self, tap: str = "hint") -> None:
        super().__init__()
        self.tap = tap
        self.projector: nn.Module | None = None

    def prepare(self, student: ModelOutput, teacher: ModelOutput) -> None:
        """Build the projector for the shapes of these features; a second call changes nothing."""
        if self.projector is None:
            guided, hint = (_pooled(values) for values in paired_features(student, teacher, self.tap))
            linear = nn.Linear(guided.shape[1], hint.shape[1], bias=False).to(guided.device)
            self.projector = parametrizations.orthogonal(linear)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Features under the tap's name; returns a scalar >= 0."""
        if self.projector is None:
            raise RuntimeError("OrthogonalFeatureLoss has no projector yet: call prepare(student, teacher) first")
        guided, hint = (_pooled(values) for values in paired_features(student, teacher, self.tap))
        projected = full_precision(self.projector(guided))
        return F.smooth_l1_loss(projected, F.layer_norm(hint, hint.shape[1:]))


def _pooled(features: Tensor) -> Tensor:
    """Vectors (N, D): tokens (N, L, D) averaged over L, maps (N, C, H, W) over positions."""
    if features.ndim not in (2, 3, 4):
        raise UserError(f"expected vectors, tokens or maps, got a feature of shape {tuple(features.shape)}")
    return {2: lambda f: f, 3: lambda f: f.mean(dim=1), 4: lambda f: f.mean(dim=(2, 3))}[features.ndim](features)
