"""ShuffleNetV2 for 32x32 pictures (Ma et al. 2018, arXiv:1807.11164), width 1.

The stem is a 1x1 convolution without stride and without max-pooling. Parameters are named as in RepDistiller's
checkpoints, which therefore load.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.models.layers import ChannelShuffle, global_pool

STEM_CHANNELS = 24


class SplitUnit(nn.Module):
    """Half of the channels pass unchanged, the other half through 1x1, depthwise 3x3, 1x1; then both are shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = nn.Conv2d(half, half, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.shuffle = ChannelShuffle(2)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, channels, H, W); returns the same shape."""
        kept, changed = maps.chunk(2, dim=1)
        changed = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(changed)))))
        changed = F.relu(self.bn3(self.conv3(changed)))
        return self.shuffle(torch.cat([kept, changed], dim=1))


class DownUnit(nn.Module):
    """Two strided branches over all channels, each giving half of the new ones, appended and shuffled."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = nn.Conv2d(in_channels, in_channels, 3, 2, padding=1, groups=in_channels, bias=False)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv2 = nn.Conv2d(in_channels, half, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(in_channels, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = nn.Conv2d(half, half, 3, 2, padding=1, groups=half, bias=False)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = nn.Conv2d(half, half, 1, bias=False)
        self.bn5 = nn.BatchNorm2d(half)
        self.shuffle = ChannelShuffle(2)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, in_channels, H, W); returns (N, channels, H / 2, W / 2)."""
        short = F.relu(self.bn2(self.conv2(self.bn1(self.conv1(maps)))))
        long = self.bn4(self.conv4(F.relu(self.bn3(self.conv3(maps)))))
        long = F.relu(self.bn5(self.conv5(long)))
        return self.shuffle(torch.cat([short, long], dim=1))


class CifarShuffleNetV2(nn.Module):
    """1x1 stem, three stages (a strided unit, then split units), a 1x1 convolution, global average pooling, classifier.

    Layers for taps, with their shapes for 32x32 inputs and width 1: ``layer1`` (N, 116, 16, 16), ``layer2``
    (N, 232, 8, 8), ``layer3`` (N, 464, 4, 4), ``pool`` (N, 1024), ``linear`` (N, num_classes).

    Args:
        channels: of the three stages and of the last convolution.
        blocks: number of split units in each stage.
        num_classes: length of the output.
        in_channels: channels of the input.
    """

    def __init__(self, channels: Sequence[int], blocks: Sequence[int], num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, STEM_CHANNELS, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM_CHANNELS)
        widths = (STEM_CHANNELS, *channels)
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(DownUnit(widths[k], widths[k + 1]), *(SplitUnit(widths[k + 1]) for _ in range(blocks[k])))
            for k in range(3)
        )
        self.conv2 = nn.Conv2d(channels[2], channels[3], 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels[3])
        self.pool = global_pool()
        self.linear = nn.Linear(channels[3], num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Pictures (N, in_channels, H, W); returns logits (N, num_classes)."""
        maps = F.relu(self.bn1(self.conv1(inputs)))
        maps = self.layer3(self.layer2(self.layer1(maps)))
        return self.linear(self.pool(F.relu(self.bn2(self.conv2(maps)))))


def shufflenet_v2(num_classes: int, in_channels: int = 3) -> CifarShuffleNetV2:
    """Width 1, 1.36 M parameters."""
    return CifarShuffleNetV2((116, 232, 464, 1024), (3, 7, 3), num_classes, in_channels)
