"""Information-theoretic distillation (ITRD: Miles et al. 2021, arXiv:2112.00459): correlation and mutual information.

Both are matrix forms of entropies: of the cross-correlation of the features, and of the Gram matrices of their samples.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.inputs import exactly, full_precision, paired_features
from kd_lightning.outputs import ModelOutput


class _Embedded(nn.Module):
    """A linear map of the student's vectors to the teacher's width."""

    requires = frozenset({"features"})

    def __init__(self, tap: str) -> None:
        super().__init__()
        self.tap = tap
        self.adapter: nn.Module | None = None

    def prepare(self, student: ModelOutput, teacher: ModelOutput) -> None:
        """Build the map for the shapes of these features; a second call changes nothing."""
        if self.adapter is None:
            guided, hint = self._vectors(student, teacher)
            self.adapter = nn.Linear(guided.shape[1], hint.shape[1]).to(guided.device)

    def vectors(self, student: ModelOutput, teacher: ModelOutput) -> tuple[Tensor, Tensor]:
        if self.adapter is None:
            raise RuntimeError(f"{type(self).__name__} has no adapter yet: call prepare(student, teacher) first")
        guided, hint = self._vectors(student, teacher)
        return full_precision(self.adapter(guided)), hint

    def _vectors(self, student: ModelOutput, teacher: ModelOutput) -> tuple[Tensor, Tensor]:
        pair = paired_features(student, teacher, self.tap)
        pooled = [values.mean(dim=(2, 3)) if values.ndim == 4 else values.flatten(1) for values in pair]
        return pooled[0], pooled[1]


class CorrelationLoss(_Embedded):
    """``loss = log2 sum_d (v_d - 1)^(2 alpha) ``, v the correlation of each dimension over the batch.

    Args:
        tap: for both models; maps are averaged to vectors.
        alpha: > 0; the paper uses 1.01 to 1.5.
    """

    takes_mixed = True

    def __init__(self, tap: str = "hint", alpha: float = 1.01) -> None:
        super().__init__(tap)
        if not alpha > 0:
            raise UserError(f"alpha must be > 0, got {alpha}")
        self.alpha = float(alpha)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Features under the tap's name, N >= 2; returns a scalar."""
        ours, theirs = self.vectors(student, teacher)
        with exactly(ours):
            ours, theirs = ((rows - rows.mean(dim=0)) / rows.std(dim=0).clamp(min=1e-12) for rows in (ours, theirs))
            correlation = (ours * theirs).sum(dim=0) / len(ours)
            return ((correlation - 1).square().clamp(min=1e-12) ** self.alpha).sum().log2()


class MutualInformationLoss(_Embedded):
    """``loss = sum G_s^2 - sum G_st^2``: Renyi entropies (order 2) of the student's Gram matrix and of the joint one.

    G are cosines between samples, of trace 1; ``G_st`` is the elementwise product of both models', of trace 1 too.

    Args:
        tap: for both models; maps are averaged to vectors.
    """

    takes_mixed = True

    def __init__(self, tap: str = "hint") -> None:
        super().__init__(tap)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Features under the tap's name; returns a scalar."""
        pair = self.vectors(student, teacher)
        with exactly(pair[0]):
            ours, theirs = (F.normalize(rows, dim=1) for rows in pair)
            gram, gram_t = ours @ ours.T, theirs @ theirs.T
            joint = gram * gram_t
            gram, joint = gram / gram.trace(), joint / joint.trace()
            return gram.square().sum() - joint.square().sum()
