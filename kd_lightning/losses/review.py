"""Knowledge review (ReviewKD: Chen et al. 2021, arXiv:2104.09044): deep layers of the student help its shallow ones.

::

    deepest layer ── fusion ──────────► compared with the teacher's deepest
                        │ residual
    layer before ──── fusion ─────────► compared with the teacher's layer before
                        │ residual
         …              …                        …

The attention over "a layer's map beside the upsampled residual" is one linear map of each at every position, so it is
computed of the two apart, the residual's before it is upsampled: the same values without the joined map.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.inputs import MAPS_TO_TAP, full_precision, paired_features
from kd_lightning.outputs import ModelOutput

CONTEXT_SIZES = (4, 2, 1)


class Fusion(nn.Module):
    """Joins a layer's map with what the deeper layers passed on, each position choosing by a learned attention."""

    def __init__(self, in_channels: int, inner_channels: int, out_channels: int, first: bool) -> None:
        super().__init__()
        self.conv1 = _normalised_convolution(in_channels, inner_channels, 1)
        self.conv2 = _normalised_convolution(inner_channels, out_channels, 3)
        self.att_conv = None if first else nn.Sequential(nn.Conv2d(2 * inner_channels, 2, 1), nn.Sigmoid())

    def forward(self, maps: Tensor, residual: Tensor | None, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Map (N, in_channels, H, W) and residual; returns the map to compare, of ``size``, and the next residual."""
        if maps.device.type == "cpu":  # oneDNN's convolutions without a copy of each map; a third of the time less
            maps = maps.contiguous(memory_format=torch.channels_last)
        maps = self.conv1(maps)
        if self.att_conv is not None and residual is not None:
            scores = self.att_conv[0]
            assert isinstance(scores, nn.Conv2d)
            own, passed = scores.weight.chunk(2, dim=1)
            upsampled = partial(F.interpolate, size=maps.shape[2:], mode="nearest")
            attention = torch.sigmoid(F.conv2d(maps, own) + upsampled(F.conv2d(residual, passed, scores.bias)))
            maps = maps * attention[:, :1] + upsampled(residual) * attention[:, 1:]
        if maps.shape[2:] != size:
            maps = F.interpolate(maps, size, mode="nearest")
        return self.conv2(maps), maps


def hierarchical_difference(student_maps: Tensor, teacher_maps: Tensor) -> Tensor:
    """Mean squared difference at full size and pooled to 4x4, 2x2, 1x1, weighed 1, 1/2, 1/4, 1/8 (and normalised).

    Sizes that are not smaller than the map are left out, without a change of the other weights.
    """
    difference = student_maps - teacher_maps
    loss, total, weight = difference.square().mean(), 1.0, 1.0
    for size in CONTEXT_SIZES:
        if size >= student_maps.shape[2]:
            continue
        weight /= 2
        loss = loss + weight * F.adaptive_avg_pool2d(difference, (size, size)).square().mean()
        total += weight
    return loss / total


class ReviewLoss(nn.Module):
    """The fused maps of the student against the teacher's, layer by layer, at several sizes, summed over taps.

    The fusions are built by :meth:`prepare`, trained with the student, and not part of the exported student. Their
    convolutions are followed by BatchNorm, so a batch needs at least 2 samples. The authors' weights on CIFAR-100 are
    0.6 to 8, raised over 20 epochs.

    Args:
        taps: names of the taps from the shallowest to the deepest; maps (N, C, H, W), or vectors (N, C) as maps of 1x1.
        inner_channels: width of the fusions; None takes the student's deepest, at most 512.
    """

    takes_mixed = True
    requires = frozenset({"features"})

    def __init__(self, taps: Sequence[str], inner_channels: int | None = None) -> None:
        super().__init__()
        if not taps:
            raise UserError("ReviewLoss needs at least one tap: set taps to names from method.taps.student")
        self.taps = list(taps)
        self.fusions = nn.ModuleList()
        self._inner_channels = inner_channels

    def prepare(self, student: ModelOutput, teacher: ModelOutput) -> None:
        """Build the fusions for the shapes of these features; a second call changes nothing."""
        if self.fusions:
            return
        pairs = self._pairs(student, teacher)
        inner = self._inner_channels or min(512, pairs[0][0].shape[1])
        for k, (guided, hint) in enumerate(pairs):
            self.fusions.append(Fusion(guided.shape[1], inner, hint.shape[1], first=k == 0).to(guided.device))

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Features under each tap's name; returns a scalar >= 0."""
        if not self.fusions:
            raise RuntimeError("ReviewLoss has no fusions yet: call prepare(student, teacher) with examples first")
        losses = []
        residual = None
        for fusion, (guided, hint) in zip(self.fusions, self._pairs(student, teacher), strict=True):
            fused, residual = fusion(guided, residual, hint.shape[2:])
            losses.append(hierarchical_difference(full_precision(fused), hint))
        return torch.stack(losses).sum()

    def _pairs(self, student: ModelOutput, teacher: ModelOutput) -> list[tuple[Tensor, Tensor]]:
        """Both models' maps by tap, the deepest first."""
        pairs = []
        for tap in reversed(self.taps):
            both = paired_features(student, teacher, tap)
            guided, hint = (maps[:, :, None, None] if maps.ndim == 2 else maps for maps in both)
            if guided.ndim != 4 or hint.ndim != 4:
                raise UserError(
                    f"tap {tap!r}: knowledge review needs maps (N, C, H, W) or vectors (N, C): {MAPS_TO_TAP}"
                )
            pairs.append((guided, hint))
        return pairs


def _normalised_convolution(in_channels: int, out_channels: int, size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, size, padding=size // 2, bias=False), nn.BatchNorm2d(out_channels)
    )
