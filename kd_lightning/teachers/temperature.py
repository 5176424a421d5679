"""The temperature at which a teacher's probabilities suit labels (Guo et al. 2017, arXiv:1706.04599, section 4.2)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

_LEAST, _MOST = 0.05, 20.0
_FLOOR = 1e-3  # one label to which a forest gave no vote at all must not decide


def fitted_temperature(logits: Tensor, targets: Tensor) -> float:
    """T > 0 with the smallest mean of ``-log max(softmax(z / T)_y, 0.001)``; below 1 for a teacher that is too cautious.

    Args:
        logits: z of shape (N, C), N >= 1: logits, or logarithms of probabilities.
        targets: class numbers y, shape (N,).
    """
    from scipy.optimize import minimize_scalar

    z, rows = logits.double(), torch.arange(len(targets))

    def loss(log_temperature: float) -> float:
        likely = (z / math.exp(log_temperature)).softmax(1)[rows, targets]
        return -float(likely.clamp_min(_FLOOR).log().mean())

    grid = np.linspace(math.log(_LEAST), math.log(_MOST), 25)
    best = int(np.argmin([loss(float(t)) for t in grid]))
    bounds = (float(grid[max(0, best - 1)]), float(grid[min(len(grid) - 1, best + 1)]))
    return math.exp(float(minimize_scalar(loss, bounds=bounds, method="bounded").x))
