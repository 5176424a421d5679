"""Figures of yes-or-no questions as sums over samples: area under the ROC curve, F1, exact matches.

``C`` questions a sample.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SCORES = 512
"""Bins of predicted probability, equally wide; scores in one bin count as ties."""


class BinaryCounts:
    """How often each class got which score, by its answer; and samples whose answers were all right.

    Args:
        classes: C.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.scores = torch.zeros(2, classes, SCORES, dtype=torch.float64)  # of "no", of "yes"
        self.exact = torch.zeros(2, dtype=torch.float64)  # samples with every answer known, and those with all right

    def add(self, probabilities: Tensor, target: Tensor, known: Tensor) -> None:
        """One batch: probabilities (N, C), target (N, C) of 0 and 1, known (N, C) where there is one."""
        place = (probabilities * SCORES).long().clamp(0, SCORES - 1)
        column = torch.arange(self.classes, device=place.device).expand_as(place)
        flat = ((target > 0.5).long() * self.classes + column) * SCORES + place
        counts = torch.bincount(flat[known], minlength=2 * self.classes * SCORES).double()
        self.scores = self.scores.to(counts.device) + counts.reshape(self.scores.shape)
        whole = known.all(1)
        right = ((probabilities > 0.5) == (target > 0.5)).all(1) & whole
        sums = torch.stack([whole.double().sum(), right.double().sum()])
        self.exact = self.exact.to(sums.device) + sums

    def figures(self) -> dict[str, float]:
        """auc and f1, means over the classes that have both answers (f1: a yes, in truth or prediction); exact."""
        scores, (whole, right) = self.scores.cpu(), self.exact.tolist()
        return {"auc": _mean(_auc(scores)), "f1": _mean(_f1(scores)), "exact": right / whole if whole else math.nan}


def _auc(scores: Tensor) -> Tensor:
    """By class: how often a yes scores above a no, ties half; nan where one of them is missing."""
    no, yes = scores
    below = no.cumsum(1) - no
    pairs = (yes * (below + no / 2)).sum(1)
    return pairs / (yes.sum(1) * no.sum(1))


def _f1(scores: Tensor) -> Tensor:
    """By class, at probability 1/2; nan where there is no yes and none was predicted."""
    half = SCORES // 2
    no, yes = scores
    hit, false, missed = yes[:, half:].sum(1), no[:, half:].sum(1), yes[:, :half].sum(1)
    return 2 * hit / (2 * hit + false + missed)


def _mean(values: Tensor) -> float:
    return float(values.nanmean())
