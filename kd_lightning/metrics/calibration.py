"""Expected calibration error (Guo, Pleiss, Sun & Weinberger 2017, arXiv:1706.04599, eq. 3)."""

from __future__ import annotations

import torch
from torch import Tensor

BINS = 15


def confidence_gaps(confidence: Tensor, correct: Tensor, counted: Tensor, bins: int = BINS) -> Tensor:
    """Sum of ``confidence - correct`` in each of ``bins`` equally wide confidence bins; sums add across batches.

    The bins are ((m - 1) / bins, m / bins]. These sums are all that the calibration error needs, since a bin's share of
    the samples times its gap between mean confidence and accuracy is the bin's sum over the number of samples.

    Args:
        confidence: shape (N,), probability of the predicted class, in [0, 1].
        correct: shape (N,), whether the prediction is right.
        counted: shape (N,), False for samples that are left out (their label is not known).

    Returns:
        shape (bins,), float64.
    """
    gap = (confidence.double() - correct.double()) * counted
    position = (confidence * bins).ceil_().long().sub_(1).clamp_(0, bins - 1)
    return torch.zeros(bins, dtype=torch.float64, device=confidence.device).index_add_(0, position, gap)


def expected_calibration_error(gaps: Tensor, samples: float) -> float:
    """From the sums of :func:`confidence_gaps` over ``samples`` samples; in [0, 1], NaN without samples."""
    return float(gaps.abs().sum()) / samples if samples else float("nan")
