"""DIST+ (Huang et al. 2025): DIST on features, by channel and by position.

The logits' two terms are DIST's (:mod:`kd_lightning.losses.dist`); these are for maps.
"""

from __future__ import annotations

from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.adapters import adapter_between, of_equal_size
from kd_lightning.losses.dist import correlation
from kd_lightning.losses.inputs import exactly, full_precision, paired_features
from kd_lightning.outputs import ModelOutput


class _MapCorrelation(nn.Module):
    requires = frozenset({"features"})

    def __init__(self, tap: str = "hint") -> None:
        super().__init__()
        self.tap = tap
        self.adapter: nn.Module = nn.Identity()

    def prepare(self, student: ModelOutput, teacher: ModelOutput) -> None:
        """Build an adapter where the numbers of channels differ; a second call changes nothing."""
        guided, hint = paired_features(student, teacher, self.tap)
        if guided.shape[1] != hint.shape[1] and isinstance(self.adapter, nn.Identity):
            self.adapter = adapter_between(guided, hint, batch_norm=False, relu=False)

    def _maps(self, student: ModelOutput, teacher: ModelOutput) -> tuple[Tensor, Tensor]:
        guided, hint = paired_features(student, teacher, self.tap)
        guided, hint = of_equal_size(full_precision(self.adapter(guided)), hint)
        if guided.shape != hint.shape or guided.ndim != 4:
            raise UserError(f"tap {self.tap!r}: DIST+ needs maps (N, C, H, W), got {guided.shape} and {hint.shape}")
        return guided, hint


class ChannelCorrelationDistance(_MapCorrelation):
    """``loss = 1 - mean_n,hw r( f_n,hw(student), f_n,hw(teacher) )``: each position's channels. (A published code adds
    the correlation itself, which pushes them apart.)

    Args:
        tap: for both models; maps (N, C, H, W).
    """

    takes_mixed = True

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Maps (N, C, H, W) under the tap's name; returns a scalar in [0, 2]."""
        rows = [maps.movedim(1, -1).flatten(0, -2) for maps in self._maps(student, teacher)]
        return 1 - _mean_correlation(*rows)


class SpatialCorrelationDistance(_MapCorrelation):
    """``loss = 1 - mean_hw r( a_hw(student), a_hw(teacher) )``, ``a_n,hw`` the mean of the channels: how a position's
    response changes from sample to sample of the batch.

    Args:
        tap: for both models; maps (N, C, H, W).
    """

    takes_mixed = True

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Maps (N, C, H, W) under the tap's name, N >= 2; returns a scalar in [0, 2]."""
        return 1 - _mean_correlation(*(maps.mean(dim=1).flatten(1).T for maps in self._maps(student, teacher)))


def _mean_correlation(ours: Tensor, theirs: Tensor) -> Tensor:
    with exactly(ours):
        return correlation(ours, theirs).mean()
