"""What embeddings are good for: neighbours' labels, a linear probe, neighbours in common, how many dimensions are in use.

Labels only score. Everything is measured within one set of samples, so that a score needs no label of any other: neighbours
of a sample are the other samples, a probe is fitted on four fifths and tried on the fifth.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

FOLDS = 5
ROWS = 1024  # of a table of similarities at once


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


def probe_hits(embeddings: Tensor, labels: Tensor, ridge: float = 1e-3) -> Tensor:
    """Whether a linear classifier that was fitted on the other four fifths gives a sample its label: bool (N,).

    Ridge regression of the classes' indicators (-1, +1) on standardised embeddings, in closed form; sample i is in fold
    ``i mod 5``. The penalty is ``ridge`` times the number of fitted samples.

    Args:
        embeddings: shape (N, D), N >= 10.
        labels: class numbers, shape (N,), >= 0.
        ridge: > 0.
    """
    values, fold = embeddings.double(), torch.arange(len(labels)) % FOLDS
    wanted = 2.0 * F.one_hot(labels).double() - 1
    hits = torch.zeros(len(labels), dtype=torch.bool)
    for number in range(FOLDS):
        fitted, tried = fold != number, fold == number
        mean, deviation = values[fitted].mean(0), values[fitted].std(0).clamp_min(1e-12)
        x, offset = (values[fitted] - mean) / deviation, wanted[fitted].mean(0)
        penalty = ridge * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
        weights = torch.linalg.solve(x.T @ x + penalty, x.T @ (wanted[fitted] - offset))
        scores = (values[tried] - mean) / deviation @ weights + offset
        hits[tried] = scores.argmax(1) == labels[tried]
    return hits


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
