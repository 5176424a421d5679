"""ResNets for 32x32 pictures (He et al. 2016, arXiv:1512.03385, section 4.2) and their four times wider relatives.

The distillation literature's ``resnet8 … resnet110`` have 16, 32, 64 channels in their three stages, ``resnet8x4`` and
``resnet32x4`` have 64, 128, 256 after a stem of 32. Differences from the paper: shortcuts across stages are learned 1x1
convolutions. Parameters are named as in RepDistiller's checkpoints, which therefore load.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.models.layers import StochasticDepth, depth_rates, global_pool, he_initialise


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; ``preactivation`` is the sum before the last ReLU, there to be tapped.

    In training the convolutions are left out for a share ``drop_path`` of the pictures."""

    def __init__(self, in_channels: int, channels: int, stride: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = nn.Sequential()
        if stride != 1 or in_channels != channels:
            self.downsample.append(nn.Conv2d(in_channels, channels, 1, stride, bias=False))
            self.downsample.append(nn.BatchNorm2d(channels))
        self.preactivation = nn.Identity()
        self.drop_path = StochasticDepth(drop_path) if drop_path else None

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, in_channels, H, W); returns (N, channels, H / stride, W / stride)."""
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(maps)))))
        if self.drop_path is not None:
            residual = self.drop_path(residual)
        return F.relu(self.preactivation(residual + self.downsample(maps)))


class CifarResNet(nn.Module):
    """Stem, three stages of basic blocks, global average pooling, classifier.

    Layers for taps, with their shapes for 32x32 inputs: ``layer1`` (N, C1, 32, 32), ``layer2`` (N, C2, 16, 16),
    ``layer3`` (N, C3, 8, 8), ``pool`` (N, C3), ``fc`` (N, num_classes); the sum before a stage's last ReLU is
    ``layer1.<last>.preactivation``.

    Args:
        depth: number of layers, 6n + 2.
        channels: of the stem and of the three stages.
        num_classes: length of the output.
        in_channels: channels of the input.
        drop_path: probability that the last block is left out for a picture in training; evenly less for the blocks before
            it, 0 for the first. In [0, 1); None: 0.
    """

    def __init__(
        self,
        depth: int,
        channels: Sequence[int],
        num_classes: int,
        in_channels: int = 3,
        drop_path: float | None = None,
    ) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"a CIFAR ResNet's depth is 6n + 2 (8, 14, 20, …), got {depth}")
        stem, *stages = channels
        blocks = (depth - 2) // 6
        rates = depth_rates(drop_path, 3 * blocks)
        self.conv1 = nn.Conv2d(in_channels, stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layer1 = _stage(stem, stages[0], rates[:blocks], stride=1)
        self.layer2 = _stage(stages[0], stages[1], rates[blocks : 2 * blocks], stride=2)
        self.layer3 = _stage(stages[1], stages[2], rates[2 * blocks :], stride=2)
        self.pool = global_pool()
        self.fc = nn.Linear(stages[2], num_classes)
        he_initialise(self)

    def forward(self, inputs: Tensor) -> Tensor:
        """Pictures (N, in_channels, H, W); returns logits (N, num_classes)."""
        maps = F.relu(self.bn1(self.conv1(inputs)))
        return self.fc(self.pool(self.layer3(self.layer2(self.layer1(maps)))))


def _stage(in_channels: int, channels: int, rates: Sequence[float], stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, stride, rates[0])
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1, rate) for rate in rates[1:]))


NARROW = (16, 16, 32, 64)
WIDE = (32, 64, 128, 256)


def resnet8(num_classes: int, in_channels: int = 3, drop_path: float | None = None) -> CifarResNet:
    """8 layers, 0.08 M parameters."""
    return CifarResNet(8, NARROW, num_classes, in_channels, drop_path)


def resnet14(num_classes: int, in_channels: int = 3, drop_path: float | None = None) -> CifarResNet:
    """14 layers, 0.18 M parameters."""
    return CifarResNet(14, NARROW, num_classes, in_channels, drop_path)


def resnet20(num_classes: int, in_channels: int = 3, drop_path: float | None = None) -> CifarResNet:
    """20 layers, 0.28 M parameters."""
    return CifarResNet(20, NARROW, num_classes, in_channels, drop_path)


def resnet32(num_classes: int, in_channels: int = 3, drop_path: float | None = None) -> CifarResNet:
    """32 layers, 0.47 M parameters."""
    return CifarResNet(32, NARROW, num_classes, in_channels, drop_path)


def resnet44(num_classes: int, in_channels: int = 3, drop_path: float | None = None) -> CifarResNet:
    """44 layers, 0.67 M parameters."""
    return CifarResNet(44, NARROW, num_classes, in_channels, drop_path)


def resnet56(num_classes: int, in_channels: int = 3, drop_path: float | None = None) -> CifarResNet:
    """56 layers, 0.86 M parameters."""
    return CifarResNet(56, NARROW, num_classes, in_channels, drop_path)


def resnet110(num_classes: int, in_channels: int = 3, drop_path: float | None = None) -> CifarResNet:
    """110 layers, 1.74 M parameters."""
    return CifarResNet(110, NARROW, num_classes, in_channels, drop_path)


def resnet8x4(num_classes: int, in_channels: int = 3, drop_path: float | None = None) -> CifarResNet:
    """8 layers, four times the channels, 1.23 M parameters."""
    return CifarResNet(8, WIDE, num_classes, in_channels, drop_path)


def resnet32x4(num_classes: int, in_channels: int = 3, drop_path: float | None = None) -> CifarResNet:
    """32 layers, four times the channels, 7.43 M parameters."""
    return CifarResNet(32, WIDE, num_classes, in_channels, drop_path)
