"""Regression with a spread: distil the teacher's mean and variance, or a distribution over bins."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.inputs import as_reference, full_precision
from kd_lightning.outputs import ModelOutput


class GaussianDivergenceLoss(nn.Module):
    """KL divergence between the predicted Gaussians, by dimension.

    ``loss = mean ( lv_s - lv_t + (v_t + (mu_t - mu_s)^2) / v_s - 1 ) / 2``, mu the outputs, ``lv = log v`` their
    ``spread``: KL(teacher || student), or the other way round with ``reverse``. Averaged over samples and dimensions;
    summed over dimensions with ``joint``.

    Args:
        reverse: KL(student || teacher).
        joint: sum over dimensions.
    """

    takes_mixed = True
    requires = frozenset({"values", "spread"})

    def __init__(self, reverse: bool = False, joint: bool = False) -> None:
        super().__init__()
        self.reverse, self.joint = reverse, joint

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Outputs and spreads of shape (N, D), for both models; returns a scalar >= 0."""
        if student.spread is None or teacher.spread is None:
            raise UserError("a Gaussian divergence needs both models to predict a spread (mean and log-variance)")
        ours = full_precision(student.logits), full_precision(student.spread)
        theirs = as_reference(teacher.logits), as_reference(teacher.spread)
        (mean, log), (other_mean, other_log) = (ours, theirs) if self.reverse else (theirs, ours)
        ratio = (log - other_log).exp() + (mean - other_mean).square() * (-other_log).exp()
        losses = (other_log - log + ratio - 1) / 2
        return losses.flatten(1).sum(dim=1).mean() if self.joint else losses.mean()


class HistogramLoss(nn.Module):
    """Cross-entropy with a histogram of a Gaussian around the target (HL-Gauss: Imani & White 2018, arXiv:1806.04613).

    The bins' masses of ``N(y, sigma)``, truncated to the bins' range and normalised. The model's outputs are logits of
    the bins, its prediction the expectation over their centres (:func:`expectation`).

    Args:
        low, high: range of the bins, low < high.
        bins: their number, >= 2.
        sigma: of the Gaussian, > 0, in the target's units; None: 0.75 bins.
        clamp: move targets outside the range to its ends first.
    """

    needs_teacher = False

    def __init__(
        self, low: float, high: float, bins: int = 64, sigma: float | None = None, clamp: bool = False
    ) -> None:
        super().__init__()
        if not low < high or bins < 2 or (sigma is not None and not sigma > 0):
            raise UserError(f"need low < high, bins >= 2 and sigma > 0, got {low}, {high}, {bins}, {sigma}")
        self.low, self.high, self.bins, self.clamp = float(low), float(high), bins, clamp
        self.sigma = float(sigma if sigma is not None else 0.75 * (high - low) / bins)

    def forward(self, student: ModelOutput, teacher: ModelOutput | None, target: Tensor) -> Tensor:
        """The student's bin logits (N, bins), target of shape (N,) or (N, 1); returns a scalar >= 0."""
        logits = full_precision(student.logits)
        masses = histogram(target.flatten().to(logits.dtype), self.low, self.high, self.bins, self.sigma, self.clamp)
        return -(masses * F.log_softmax(logits, dim=1)).sum(dim=1).mean()


def histogram(values: Tensor, low: float, high: float, bins: int, sigma: float, clamp: bool = False) -> Tensor:
    """Bins' masses of Gaussians around values (N,), truncated to [low, high]: (N, bins), rows sum to 1."""
    if clamp:
        values = values.clamp(low, high)
    edges = torch.linspace(low, high, bins + 1, dtype=values.dtype, device=values.device)
    scaled = (edges[None] - values[:, None]) / (math.sqrt(2.0) * sigma)
    cumulative = torch.erf(scaled)
    return (cumulative[:, 1:] - cumulative[:, :-1]) / (cumulative[:, -1:] - cumulative[:, :1])


def expectation(logits: Tensor, low: float, high: float) -> Tensor:
    """Mean of the predicted distribution over bin centres: logits (N, bins) give (N,)."""
    edges = torch.linspace(low, high, logits.shape[1] + 1, dtype=logits.dtype, device=logits.device)
    return logits.softmax(dim=1) @ ((edges[1:] + edges[:-1]) / 2)
