"""What embeddings are good for: neighbours' labels, a linear probe, neighbours in common, how many dimensions are in use.

Labels only score. Everything is measured within one set of samples, so that a score needs no label of any other: neighbours
of a sample are the other samples, a probe is fitted on four fifths and tried on the fifth, or on so many and tried on the rest.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

FOLDS = 5
ROWS = 1024  # of a table of similarities at once
RIDGES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
"""Penalties a sample, of which a probe takes the best: embeddings of many numbers need large ones where samples are few."""


def nearest(embeddings: Tensor, neighbours: int) -> Tensor:
    """Positions of the ``neighbours`` others with the largest cosine, for each of (N, D): (N, neighbours)."""
    rows = F.normalize(embeddings.float(), dim=1)
    found = []
    for start in range(0, len(rows), ROWS):
        part = rows[start : start + ROWS] @ rows.T
        own = torch.arange(len(part))
        part[own, start + own] = -torch.inf
        found.append(part.topk(min(neighbours, len(rows) - 1), dim=1).indices)
    return torch.cat(found)


def neighbour_hits(embeddings: Tensor, labels: Tensor, neighbours: int) -> Tensor:
    """Whether most of a sample's nearest others have its label (of equals the smallest label wins): bool (N,).

    Args:
        embeddings: shape (N, D), N >= 2.
        labels: class numbers, shape (N,), >= 0.
        neighbours: how many vote.
    """
    voting = labels[nearest(embeddings, neighbours)]
    votes = torch.zeros(len(labels), int(labels.max()) + 1).scatter_add_(1, voting, torch.ones(voting.shape))
    return votes.argmax(1) == labels


def probe_hits(embeddings: Tensor, labels: Tensor, ridge: float | None = None) -> Tensor:
    """Whether a linear classifier that was fitted on the other four fifths gives a sample its label: bool (N,).

    Ridge regression of the classes' indicators (-1, +1) on embeddings of unit length, in closed form; sample i is in fold
    ``i mod 5``. The penalty is ``ridge`` times the number of fitted samples.

    Args:
        embeddings: shape (N, D), N >= 10.
        labels: class numbers, shape (N,), >= 0.
        ridge: > 0; None: of ``RIDGES`` the one with the least squared error where each sample of the first four fifths
            is left out in turn.
    """
    fold = torch.arange(len(labels)) % FOLDS
    hits = torch.zeros(len(labels), dtype=torch.bool)
    for number in range(FOLDS):
        tried = fold == number
        probe = Probe(embeddings[~tried], labels[~tried], int(labels.max()) + 1, ridge)
        hits[tried], ridge = probe(embeddings[tried]) == labels[tried], probe.ridge
    return hits


def few_label_probe(embeddings: Tensor, labels: Tensor, fitted: int) -> float:
    """Share of hits of linear classifiers that were fitted on ``fitted`` samples, among all others, in [0, 1].

    As :func:`probe_hits`; there are as many classifiers as there are parts of that size, each of samples that lie evenly
    spread, and their mean is taken.

    Args:
        embeddings: shape (N, D).
        labels: class numbers, shape (N,), >= 0.
        fitted: >= 10, < N.
    """
    shares = []
    for part in range(len(labels) // fitted):
        tried = torch.ones(len(labels), dtype=torch.bool)
        tried[torch.arange(fitted) * len(labels) // fitted + part] = False
        probe = Probe(embeddings[~tried], labels[~tried], int(labels.max()) + 1)
        shares.append(float((probe(embeddings[tried]) == labels[tried]).double().mean()))
    return sum(shares) / len(shares)


class Probe:
    """Ridge regression of classes' indicators on embeddings of unit length (their own lengths often mean nothing).

    Args:
        embeddings: shape (N, D).
        labels: class numbers, shape (N,).
        classes: how many there are.
        ridge: the penalty a sample; None: the best of ``RIDGES`` for samples that are left out one by one (in closed
            form: Allen 1974, Technometrics 16).
    """

    def __init__(self, embeddings: Tensor, labels: Tensor, classes: int, ridge: float | None = None) -> None:
        values, wanted = F.normalize(embeddings.double(), dim=1), 2.0 * F.one_hot(labels, classes).double() - 1
        self._mean, self._offset = values.mean(0), wanted.mean(0)
        x = values - self._mean
        y = wanted - self._offset
        self.ridge = _best_ridge(x, y) if ridge is None else ridge
        penalty = self.ridge * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
        self._weights = torch.linalg.solve(x.T @ x + penalty, x.T @ y)

    def __call__(self, embeddings: Tensor) -> Tensor:
        """The likeliest class of each of (M, D): (M,)."""
        scores: Tensor = (F.normalize(embeddings.double(), dim=1) - self._mean) @ self._weights + self._offset
        return scores.argmax(1)


def _best_ridge(x: Tensor, y: Tensor) -> float:
    """The one of ``RIDGES`` with the least error of left-out samples, for centred x (N, D) and y (N, C)."""
    wide = x.shape[1] >= len(x)
    strength, vectors = torch.linalg.eigh(x @ x.T if wide else x.T @ x)
    kept = strength > 1e-9 * strength[-1].clamp_min(1e-300)
    strength = strength[kept]
    left = vectors[:, kept] if wide else x @ vectors[:, kept] / strength.sqrt()
    inner = left.T @ y
    errors = {}
    for ridge in RIDGES:
        shrunk = strength / (strength + ridge * len(x))
        leverage = (left.square() * shrunk).sum(1, keepdim=True) + 1 / len(x)  # that of the mean, too
        errors[ridge] = float(((y - left * shrunk @ inner) / (1 - leverage).clamp_min(1e-9)).square().mean())
    return min(errors, key=lambda ridge: errors[ridge])


def neighbours_in_common(first: Tensor, second: Tensor, neighbours: int) -> Tensor:
    """Share of a sample's nearest others in one space that are so in the other, too: (N,) in [0, 1]."""
    ours, theirs = nearest(first, neighbours), nearest(second, neighbours)
    return (ours[:, :, None] == theirs[:, None, :]).any(2).double().mean(1)


def dimensions_in_use(embeddings: Tensor) -> float:
    """The effective rank (Roy & Vetterli 2007): exp of the entropy of the singular values' shares, in [1, D]; 1 where all
    embeddings are one."""
    values = embeddings.double()
    spread = torch.linalg.svdvals(values - values.mean(0))
    spread = spread[spread > 1e-9 * max(1.0, float(values.abs().max()))]
    if not len(spread):
        return 1.0
    shares = spread / spread.sum()
    return float((-(shares * shares.log()).sum()).exp())
