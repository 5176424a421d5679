"""How well two divisions of the same samples into groups agree, and how well one suits the samples themselves.

All but the silhouette follow from the table of counts of two divisions (:class:`CountTable`), which adds up over batches
and processes. Numbers of groups mean nothing: what is compared is who is together with whom.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kd_lightning.batch import UNLABELLED


class CountTable:
    """How many samples are in group a of one division and in group b of another: (A, B), which grows as needed."""

    def __init__(self) -> None:
        self.counts = torch.zeros(0, 0, dtype=torch.float64)

    def add(self, first: Tensor, second: Tensor) -> None:
        """Count samples: group numbers (N,) of both divisions, >= 0."""
        if not len(first):
            return
        rows, columns = int(first.max()) + 1, int(second.max()) + 1
        self.grow(rows, columns)
        width = self.counts.shape[1]
        cells = torch.bincount((first.long() * width + second.long()).flatten(), minlength=self.counts.numel())
        self.counts += cells.reshape(self.counts.shape).double().cpu()

    def grow(self, rows: int, columns: int) -> None:
        """Make room for so many groups."""
        rows, columns = max(rows, self.counts.shape[0]), max(columns, self.counts.shape[1])
        if (rows, columns) != tuple(self.counts.shape):
            grown = torch.zeros(rows, columns, dtype=torch.float64)
            grown[: self.counts.shape[0], : self.counts.shape[1]] = self.counts
            self.counts = grown

    def sync(self, reduce: Callable[[Tensor], Tensor]) -> None:
        """Add up over processes, some of which may have seen fewer groups: all make room for the sum of what each has."""
        rows, columns = reduce(torch.tensor([float(size) for size in self.counts.shape])).long().tolist()
        self.grow(rows, columns)
        self.counts = reduce(self.counts).cpu()


def known_labels(target: Any, samples: int) -> Tensor:
    """Class numbers (N,) on the CPU; ``UNLABELLED`` for all where a target is anything else."""
    if isinstance(target, Tensor) and target.dim() == 1 and not target.is_floating_point():
        return target.cpu()
    return torch.full((samples,), UNLABELLED)


def matched_share(counts: Tensor) -> float:
    """Share of samples in matching groups, groups being matched one to one so that it is largest (Kuhn 1955).

    Of clusters (rows) and labels (columns): the accuracy of a clustering (Yang et al. 2010). In [0, 1]; NaN without samples.
    """
    from scipy.optimize import linear_sum_assignment

    total = float(counts.sum())
    if not total:
        return float("nan")
    table = counts.numpy()
    return float(table[linear_sum_assignment(table, maximize=True)].sum()) / total


def normalized_mutual_information(counts: Tensor) -> float:
    """``I(A; B) / ((H(A) + H(B)) / 2)`` in [0, 1]; 1 where both have a single group; NaN without samples."""
    total = float(counts.sum())
    if not total:
        return float("nan")
    joint = counts.double() / total
    first, second = _entropy(joint.sum(1)), _entropy(joint.sum(0))
    mean = (first + second) / 2
    if mean <= 0:
        return 1.0
    information = first + second - _entropy(joint.flatten())
    return min(1.0, max(0.0, information / mean))


def adjusted_rand_index(counts: Tensor) -> float:
    """Pairs on which both divisions agree, corrected for chance (Hubert & Arabie 1985): 1 equal, about 0 by chance."""
    total = float(counts.sum())
    if not total:
        return float("nan")

    def pairs(groups: Tensor) -> float:
        return float((groups * (groups - 1)).sum()) / 2

    together, all_pairs = pairs(counts), total * (total - 1) / 2
    rows, columns = pairs(counts.sum(1)), pairs(counts.sum(0))
    expected = rows * columns / all_pairs if all_pairs else 0.0
    largest = (rows + columns) / 2
    return 1.0 if largest == expected else (together - expected) / (largest - expected)


def distance_table(samples: Tensor) -> Tensor:
    """Euclidean distances of all pairs of samples (N, D), in their precision: (N, N) with a diagonal of zeros."""
    return torch.cdist(samples, samples).fill_diagonal_(0.0)


def silhouettes(distances: Tensor, groups: Tensor) -> Tensor:
    """Each sample's silhouette (Rousseeuw 1987), ``(b - a) / max(a, b)``: (N,) in [-1, 1].

    ``a`` is the mean Euclidean distance to the others of its group, ``b`` that to the nearest other group. 0 for a
    sample that is alone in its group, and for all where there is a single group.

    Args:
        distances: of all pairs, shape (N, N).
        groups: group numbers, shape (N,).
    """
    numbers = groups.unique()
    if len(numbers) < 2:
        return distances.new_zeros(len(groups))
    members = (groups[:, None] == numbers[None]).to(distances.dtype)
    sums, sizes = distances @ members, members.sum(0)
    own = members.bool()
    size = (members * sizes).sum(1)
    within = sums[own] / (size - 1).clamp_min(1)
    beside = (sums / sizes).masked_fill(own, torch.inf).amin(1)
    values = (beside - within) / torch.maximum(beside, within).clamp_min(torch.finfo(distances.dtype).tiny)
    return torch.where(size > 1, values, 0.0)


def _entropy(shares: Tensor) -> float:
    """In nats; a share of 0 adds 0."""
    shares = shares[shares > 0]
    return float(-(shares * shares.log()).sum())
