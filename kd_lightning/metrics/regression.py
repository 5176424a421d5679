"""Figures of a regression as sums over samples: errors, share of variance, likelihood, calibration, closeness to the teacher.

Everything is summed in standardised units and brought to the data's at the end. ``D`` values a sample; a figure of
several values is the mean of theirs, as scikit-learn's ``uniform_average`` has it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

LEVELS = 20
"""Parts into which [0, 1] is cut for calibration."""


class Predicted(NamedTuple):
    """What one model predicts of one batch, each of shape (N, D); None where it predicts no spread.

    Attributes:
        mean: the prediction.
        log_density: of the target.
        cumulative: probability of a value up to the target.
    """

    mean: Tensor
    log_density: Tensor | None = None
    cumulative: Tensor | None = None


class ErrorSums:
    """Sums of one model's errors against the targets, in one float64 tensor.

    Args:
        values: D.
    """

    def __init__(self, values: int) -> None:
        self.values = values
        self.state = torch.zeros(7 + LEVELS, values, dtype=torch.float64)

    def add(self, predicted: Predicted, target: Tensor, losses: Tensor) -> None:
        """One batch: targets (N, D), nan where there is none; ``losses`` (N, D), in the task's own sense."""
        known = ~target.isnan()
        y, mean = (torch.where(known, x, 0.0).double() for x in (target, predicted.mean))
        error = mean - y
        density = predicted.log_density
        nll = torch.zeros_like(error) if density is None else torch.where(known, -density, 0.0).double()
        rows = [known, y, y.square(), error.square(), error.abs(), torch.where(known, losses, 0.0), nll]
        parts = [torch.stack([row.double().sum(0) for row in rows])]
        if predicted.cumulative is not None:
            level = (predicted.cumulative * LEVELS).long().clamp(0, LEVELS - 1)
            parts.append(torch.stack([((level == k) & known).double().sum(0) for k in range(LEVELS)]))
        else:
            parts.append(torch.zeros(LEVELS, self.values, dtype=torch.float64, device=error.device))
        sums = torch.cat(parts)
        self.state = self.state.to(sums.device) + sums

    def figures(self, std: Tensor, spread: bool) -> dict[str, float]:
        """rmse, mae, r2, loss_task; nll and calibration with a spread. ``std`` (D,) is the unit of the data's."""
        state, std = self.state.cpu(), std.double()
        n, y, squares, errors, absolute, losses, nll = state[:7]
        variance = squares - y.square() / n
        found = {
            "rmse": float(((errors / n).sqrt() * std).mean()),
            "mae": float((absolute / n * std).mean()),
            "r2": float((1 - errors / variance).mean()),
            "loss_task": float(losses.sum() / n.sum()),
        }
        if spread:
            found["nll"] = float((nll / n + std.log()).mean())
            found["calibration"] = _miscalibration(state[7:], n)
        return {name: value if math.isfinite(value) else math.nan for name, value in found.items()}


class ClosenessSums:
    """Sums of how near a student's predictions are to its teacher's, labelled or not."""

    def __init__(self, values: int) -> None:
        self.state = torch.zeros(7, values, dtype=torch.float64)

    def add(self, student: Tensor, teacher: Tensor) -> None:
        """One batch of predictions, (N, D) each."""
        s, t = student.double(), teacher.double()
        rows = [torch.ones_like(s), s, t, s.square(), t.square(), s * t, (s - t).square()]
        sums = torch.stack([row.sum(0) for row in rows])
        self.state = self.state.to(sums.device) + sums

    def figures(self, std: Tensor) -> dict[str, float]:
        """rmse_teacher, in the data's units, and corr_teacher."""
        n, s, t, ss, tt, st, gaps = self.state.cpu()
        covariance = st - s * t / n
        variances = (ss - s.square() / n).clamp_min(0) * (tt - t.square() / n).clamp_min(0)
        return {
            "rmse_teacher": float(((gaps / n).sqrt() * std.double()).mean()),
            "corr_teacher": float((covariance / variances.sqrt()).mean()),
        }

    @property
    def samples(self) -> float:
        return float(self.state[0, 0])


def _miscalibration(counts: Tensor, n: Tensor) -> float:
    """Mean over levels p of ``|share of targets below the predicted quantile p - p|`` (Kuleshov et al. 2018,
    arXiv:1807.00263, eq. 9, with the absolute in place of the squared difference); counts (LEVELS, D)."""
    below = counts.cumsum(0)[:-1] / n
    levels = torch.arange(1, LEVELS, dtype=torch.float64)[:, None] / LEVELS
    return float((below - levels).abs().mean())
