"""Inter-channel correlation (ICKD: Liu et al. 2021, arXiv:2202.03680), and KTA's affinity (He et al. 2019, arXiv:1903.04688)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.adapters import of_equal_size
from kd_lightning.losses.inputs import exactly, full_precision, paired_features, paired_maps
from kd_lightning.outputs import ModelOutput


class ChannelCorrelationLoss(nn.Module):
    """Difference of the channels' inner products over positions, rows of unit length.

    ``loss = sum |R(F_s F_s^T) - R(F_t F_t^T)|_F^2 / (C N^2)``, F the maps (C, H W) of a sample, R dividing each row by
    its Euclidean norm. Height and width may differ; where channels do, a 1x1 convolution with BatchNorm maps the student's.
    This is torchdistill's scale; the authors' code for CIFAR-100 divides by N once, so that their weight 2.5 with 64 samples
    in a batch is 160 here.

    Args:
        tap: for both models; maps (N, C, H, W).
    """

    takes_mixed = True

    requires = frozenset({"features"})

    def __init__(self, tap: str = "hint") -> None:
        super().__init__()
        self.tap = tap
        self.adapter: nn.Module = nn.Identity()

    def prepare(self, student: ModelOutput, teacher: ModelOutput) -> None:
        """Build the adapter where the numbers of channels differ; a second call changes nothing."""
        guided, hint = paired_maps(student, teacher, self.tap)
        if guided.shape[1] != hint.shape[1] and isinstance(self.adapter, nn.Identity):
            inner, outer = guided.shape[1], hint.shape[1]
            adapter = nn.Sequential(nn.Conv2d(inner, outer, 1, bias=False), nn.BatchNorm2d(outer))
            self.adapter = adapter.to(guided.device)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Maps (N, C, H, W) under the tap's name; returns a scalar >= 0."""
        guided, hint = paired_maps(student, teacher, self.tap)
        with exactly(guided):
            rows = [maps.flatten(2) for maps in (full_precision(self.adapter(guided)), hint)]
            ours, theirs = (F.normalize(row @ row.transpose(1, 2), dim=2) for row in rows)
            return (ours - theirs).square().sum() / (ours.shape[1] * len(ours) ** 2)


class AffinityLoss(nn.Module):
    """Difference of each channel's affinities of positions, as its Frobenius norm.

    ``loss = mean_n sum_c | u_nc u_nc^T - v_nc v_nc^T |_F / (H W)``, u and v the student's and the teacher's channel as
    vectors of unit length over positions; computed as ``sqrt(2 (1 - cos^2))`` without the matrices. So
    torchdistill has it, channel by channel.

    Args:
        tap: for both models; maps (N, C, H, W). Where channels differ, a 1x1 convolution maps the student's; of two sizes
            the larger is averaged down.
    """

    requires = frozenset({"features"})
    takes_mixed = True

    def __init__(self, tap: str = "hint") -> None:
        super().__init__()
        self.tap = tap
        self.adapter: nn.Module = nn.Identity()

    def prepare(self, student: ModelOutput, teacher: ModelOutput) -> None:
        """Build the adapter where the numbers of channels differ; a second call changes nothing."""
        guided, hint = paired_maps(student, teacher, self.tap)
        if guided.shape[1] != hint.shape[1] and isinstance(self.adapter, nn.Identity):
            self.adapter = nn.Conv2d(guided.shape[1], hint.shape[1], 1).to(guided.device)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Maps (N, C, H, W) under the tap's name; returns a scalar >= 0."""
        guided, hint = paired_maps(student, teacher, self.tap)
        guided, hint = of_equal_size(full_precision(self.adapter(guided)), hint)
        if guided.shape != hint.shape:
            raise UserError(f"tap {self.tap!r}: affinity needs equal shapes, got {guided.shape} and {hint.shape}")
        ours, theirs = (F.normalize(maps.flatten(2), dim=2) for maps in (guided, hint))
        squared = 2 * (1 - (ours * theirs).sum(dim=2).square())
        distances = torch.where(squared > 0, squared, 1.0).sqrt() * (squared > 0)
        return distances.sum(dim=1).mean() / ours.shape[2]


class NormalisedMapLoss(nn.Module):
    """Distance of maps of unit length, ``loss = mean_n | F_s / |F_s|_q - F_t / |F_t|_q |_2``, or with ``p=1`` the mean
    absolute difference of their numbers (KTA's comparison).

    Args:
        tap: for both models; features of equal shapes.
        p: 2, or 1.
        q: norm that is made 1.
    """

    takes_mixed = True
    requires = frozenset({"features"})

    def __init__(self, tap: str = "hint", p: int = 1, q: float = 2.0) -> None:
        super().__init__()
        if p not in (1, 2) or not q > 0:
            raise UserError(f"p must be 1 or 2 and q > 0, got {p} and {q}")
        self.tap, self.p, self.q = tap, p, float(q)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Features of equal shapes (N, ...) under the tap's name; returns a scalar >= 0."""
        ours, theirs = paired_features(student, teacher, self.tap)
        if ours.shape != theirs.shape:
            raise UserError(f"tap {self.tap!r}: {tuple(ours.shape)} does not fit {tuple(theirs.shape)}")
        difference = F.normalize(ours.flatten(1), p=self.q, dim=1) - F.normalize(theirs.flatten(1), p=self.q, dim=1)
        return difference.abs().mean() if self.p == 1 else _norm(difference).mean()


def _norm(rows: Tensor) -> Tensor:
    """Euclidean norm over the last dimension, with a gradient of zero at zero."""
    squared = rows.square().sum(dim=-1)
    return torch.where(squared > 0, squared, 1.0).sqrt() * (squared > 0)
