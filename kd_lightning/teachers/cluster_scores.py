"""How a fitted clusterer scores samples for each of its clusters: by probabilities, by centres, by neighbours."""

from __future__ import annotations

import hashlib
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

FLOOR = 1e-3
"""What every cluster has of a vote beside the neighbours' own: log 0 could not be softened."""
LOWEST = -1e3
"""The log of a probability that a mixture gives as 0."""
AT_ONCE = 1024


class Scores(Protocol):
    """Scores (N, K), float64 on the CPU, of rows of features (N, D)."""

    numbers: int
    """How many numbers have to be kept to answer."""

    def __call__(self, rows: Tensor) -> Tensor: ...

    def digest(self) -> str:
        """Of all that the scores depend on."""
        ...


class ProbabilityScores:
    """Log-probabilities of an estimator with ``predict_proba``."""

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator
        self._arrays = [value for _, value in sorted(vars(estimator).items()) if isinstance(value, np.ndarray)]
        self.numbers = int(getattr(estimator, "n_numbers_", 0)) or sum(array.size for array in self._arrays)

    def __call__(self, rows: Tensor) -> Tensor:
        shares = torch.from_numpy(np.asarray(self.estimator.predict_proba(rows.cpu().numpy()), dtype=np.float64))
        return shares.log().clamp_min(LOWEST)

    def digest(self) -> str:
        return digest_of(*self._arrays)


class CentreScores:
    """Minus the squared distance to each centre (K, D)."""

    def __init__(self, centres: np.ndarray) -> None:
        self.centres = torch.from_numpy(np.array(centres, dtype=np.float64))
        self.numbers = self.centres.numel()

    def __call__(self, rows: Tensor) -> Tensor:
        values = rows.cpu().double()
        return -torch.cdist(values, self.centres, compute_mode="donot_use_mm_for_euclid_dist").square()

    def digest(self) -> str:
        return digest_of(self.centres.numpy())


class NeighbourScores:
    """``log( (votes_k / n + FLOOR) / (1 + K FLOOR) )`` of the n nearest fitted samples; a fitted sample votes for itself too.

    Args:
        rows: the fitted samples' features, (M, D).
        labels: their clusters, (M,); negative: of none (noise), which votes for nothing.
        neighbours: n.
    """

    def __init__(self, rows: np.ndarray, labels: np.ndarray, neighbours: int) -> None:
        known = labels >= 0
        self.rows = torch.from_numpy(np.array(rows[known], dtype=np.float32))
        self.labels = torch.from_numpy(np.array(labels[known], dtype=np.int64))
        self.clusters = int(self.labels.max()) + 1 if len(self.labels) else 0
        self.neighbours = min(neighbours, max(1, len(self.labels)))
        self.numbers = self.rows.numel() + self.labels.numel()

    def __call__(self, rows: Tensor) -> Tensor:
        parts = [self._votes(part) for part in rows.cpu().float().split(AT_ONCE)]
        shares = torch.cat(parts) / self.neighbours
        return ((shares + FLOOR) / (1 + self.clusters * FLOOR)).log()

    def _votes(self, rows: Tensor) -> Tensor:
        nearest = torch.cdist(rows, self.rows).topk(self.neighbours, largest=False).indices
        votes = torch.zeros(len(rows), self.clusters, dtype=torch.float64)
        return votes.scatter_add_(1, self.labels[nearest], torch.ones(nearest.shape, dtype=torch.float64))

    def digest(self) -> str:
        return digest_of(self.rows.numpy(), self.labels.numpy(), np.array(self.neighbours))


def digest_of(*arrays: np.ndarray) -> str:
    """Hexadecimal digits that stand for some arrays."""
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(repr((array.shape, str(array.dtype))).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
