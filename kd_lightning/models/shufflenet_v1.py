"""ShuffleNetV1 for 32x32 pictures (Zhang et al. 2018, arXiv:1707.01083): 3 groups, 240, 480, 960 channels.

The stem is a 1x1 convolution without stride, since 32x32 pictures have no resolution to give away. Parameters are
named as in RepDistiller's checkpoints, which therefore load.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.models.layers import ChannelShuffle, global_pool

STEM_CHANNELS = 24


class ShuffleUnit(nn.Module):
    """Grouped 1x1, channel shuffle, depthwise 3x3, grouped 1x1; joined with the shortcut.

    With stride 1 the shortcut is added; with stride 2 it is averaged down and appended as further channels.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, groups: int) -> None:
        super().__init__()
        new = channels - in_channels if stride == 2 else channels
        inner = new // 4
        # The stem's 24 channels are too few to be split into groups.
        first_groups = 1 if in_channels == STEM_CHANNELS else groups
        self.conv1 = nn.Conv2d(in_channels, inner, 1, groups=first_groups, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.shuffle1 = ChannelShuffle(first_groups)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, groups=inner, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, new, 1, groups=groups, bias=False)
        self.bn3 = nn.BatchNorm2d(new)
        self.average = nn.AvgPool2d(3, stride=2, padding=1) if stride == 2 else None
        self.preactivation = nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, in_channels, H, W); returns (N, channels, H / stride, W / stride)."""
        new = self.shuffle1(F.relu(self.bn1(self.conv1(maps))))
        new = F.relu(self.bn2(self.conv2(new)))
        new = self.bn3(self.conv3(new))
        joined = new + maps if self.average is None else torch.cat([new, self.average(maps)], dim=1)
        return F.relu(self.preactivation(joined))


class CifarShuffleNetV1(nn.Module):
    """1x1 stem, three stages of shuffle units, global average pooling, classifier.

    Layers for taps, with their shapes for 32x32 inputs: ``layer1`` (N, 240, 16, 16), ``layer2`` (N, 480, 8, 8),
    ``layer3`` (N, 960, 4, 4), ``pool`` (N, 960), ``linear`` (N, num_classes); before a stage's last ReLU:
    ``layer1.<last>.preactivation``.

    Args:
        channels: of the three stages.
        blocks: number of units in each stage.
        groups: groups of the 1x1 convolutions.
        num_classes: length of the output.
        in_channels: channels of the input.
    """

    def __init__(
        self, channels: Sequence[int], blocks: Sequence[int], groups: int, num_classes: int, in_channels: int = 3
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, STEM_CHANNELS, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM_CHANNELS)
        widths = (STEM_CHANNELS, *channels)
        self.layer1, self.layer2, self.layer3 = (_stage(widths[k], widths[k + 1], blocks[k], groups) for k in range(3))
        self.pool = global_pool()
        self.linear = nn.Linear(channels[-1], num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Pictures (N, in_channels, H, W); returns logits (N, num_classes)."""
        maps = F.relu(self.bn1(self.conv1(inputs)))
        return self.linear(self.pool(self.layer3(self.layer2(self.layer1(maps)))))


def _stage(in_channels: int, channels: int, blocks: int, groups: int) -> nn.Sequential:
    first = ShuffleUnit(in_channels, channels, 2, groups)
    return nn.Sequential(first, *(ShuffleUnit(channels, channels, 1, groups) for _ in range(blocks - 1)))


def shufflenet_v1(num_classes: int, in_channels: int = 3) -> CifarShuffleNetV1:
    """3 groups, 0.95 M parameters."""
    return CifarShuffleNetV1((240, 480, 960), (4, 8, 4), 3, num_classes, in_channels)
