"""Imitation of a teacher's values: its prediction takes the label's place (Ba & Caruana 2014, arXiv:1312.6184, eq. 1)."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.joints import VALUES
from kd_lightning.losses.values import values_of
from kd_lightning.outputs import ModelOutput

KINDS = ("mse", "huber", "mae")


class ValueRegressionLoss(nn.Module):
    """Mean over samples and values of the squared, Huber's or absolute difference of the two predictions.

    In standardised units, so that weights mean the same whatever the target's unit. Samples without a label count like
    any other: here lies most of the gain.

    Args:
        kind: "mse", "huber" or "mae".
        delta: of Huber's: from where on a difference counts linearly, in standard deviations of the target, > 0.
    """

    takes_mixed = True
    requires = frozenset({VALUES})

    def __init__(self, kind: Literal["mse", "huber", "mae"] = "mse", delta: float = 1.0) -> None:
        super().__init__()
        if kind not in KINDS:
            raise UserError(f"kind must be {' or '.join(KINDS)}, got {kind!r}")
        if not delta > 0:
            raise UserError(f"delta must be > 0, got {delta}")
        self.kind, self.delta = kind, delta

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Predictions (N, D) of both models; returns a scalar >= 0."""
        ours, theirs = values_of(student, teacher)
        if self.kind == "mse":
            return F.mse_loss(ours, theirs)
        return F.l1_loss(ours, theirs) if self.kind == "mae" else F.huber_loss(ours, theirs, delta=self.delta)
