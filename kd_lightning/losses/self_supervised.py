"""Self-supervised knowledge (SSKD: Xu et al. 2020, arXiv:2006.07114): similarities between a sample and its views."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.cross_view import Views
from kd_lightning.losses.inputs import checked_temperature, exactly, full_precision
from kd_lightning.losses.soft_target import softened_divergence
from kd_lightning.outputs import ModelOutput


class ViewSimilarityLoss(nn.Module):
    """KL divergence between the models' similarities of transformed samples to the plain ones.

    ``loss = T^2 mean_i KL( softmax_j cos(t'_i, t_j) / T || softmax_j cos(s'_i, s_j) / T )``: primes are the further
    views, j runs over the plain samples of the batch. Taken of the views that the teacher recognises (highest
    similarity to their own sample), and of those that it does not the likeliest ``ratio``, as the authors choose.

    Args:
        tap: of embeddings (N, D), for both models; maps are averaged.
        temperature: T > 0; the authors' 0.5.
        ratio: share of the unrecognised views that is kept, in [0, 1].
    """

    requires = frozenset({"features"})

    def __init__(self, tap: str = "embedding", temperature: float = 0.5, ratio: float = 0.75) -> None:
        super().__init__()
        if not 0 <= ratio <= 1:
            raise UserError(f"ratio must be in [0, 1], got {ratio}")
        self.tap, self.temperature, self.ratio = tap, checked_temperature(temperature), float(ratio)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor, views: Views) -> Tensor:
        """Embeddings under the tap's name in each view; returns a scalar >= 0."""
        if not views:
            raise UserError("a loss on views needs further views of each sample: set data.extra_views=1 or more")
        ours = self._similarities(student, [pair[0] for pair in views])
        theirs = self._similarities(teacher, [pair[1] for pair in views]).detach()
        own = torch.arange(len(student.logits), device=ours.device).repeat(len(views))
        losses = softened_divergence(ours, theirs, self.temperature)
        return _mean_of(losses, chosen(theirs, own, self.ratio))

    def _similarities(self, plain: ModelOutput, views: Sequence[ModelOutput]) -> Tensor:
        """Cosines of each view's samples with the plain ones: (views * N, N)."""
        rows = F.normalize(self._rows(plain), dim=1)
        with exactly(rows):
            return torch.cat([F.normalize(self._rows(view), dim=1) @ rows.T for view in views])

    def _rows(self, output: ModelOutput) -> Tensor:
        if self.tap not in output.features:
            raise UserError(f"a loss needs the tap {self.tap!r} of both models: set method.taps")
        features = full_precision(output.features[self.tap])
        return features.mean(dim=(2, 3)) if features.ndim == 4 else features.flatten(1)


class ViewLogitLoss(nn.Module):
    """Soft targets on the further views, of those that the teacher classifies rightly, and the best of the others.

    Args:
        temperature: T > 0.
        ratio: share of the wrongly classified views that is kept, in [0, 1].
    """

    def __init__(self, temperature: float = 4.0, ratio: float = 1.0) -> None:
        super().__init__()
        if not 0 <= ratio <= 1:
            raise UserError(f"ratio must be in [0, 1], got {ratio}")
        self.temperature, self.ratio = checked_temperature(temperature), float(ratio)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor, views: Views) -> Tensor:
        """Logits (N, C) in each view, target of shape (N,); returns a scalar >= 0."""
        if not views:
            raise UserError("a loss on views needs further views of each sample: set data.extra_views=1 or more")
        ours = full_precision(torch.cat([pair[0].logits for pair in views]))
        theirs = full_precision(torch.cat([pair[1].logits for pair in views])).detach()
        losses = softened_divergence(ours, theirs, self.temperature)
        return _mean_of(losses, chosen(theirs, target.clamp(min=0).repeat(len(views)), self.ratio))


def chosen(scores: Tensor, right: Tensor, ratio: float) -> Tensor:
    """Positions of rows whose highest score is at ``right``, and of the others the ``ratio`` ranked best there."""
    rank = (scores > scores.gather(1, right[:, None])).sum(dim=1)
    correct = rank == 0
    order = torch.argsort(rank, stable=True)
    kept = int(correct.sum()) + int(ratio * int((~correct).sum()))
    return order[:kept]


def _mean_of(losses: Tensor, positions: Tensor) -> Tensor:
    """The mean of the losses at these positions, 0 where there are none (of one sample, three quarters are none)."""
    return losses[positions].mean() if len(positions) else losses.sum() * 0.0
