"""Wide ResNets for 32x32 pictures (Zagoruyko & Komodakis 2016, arXiv:1605.07146): ``wrn_<depth>_<width>``.

Parameters are named as in RepDistiller's checkpoints, which therefore load.
"""

from __future__ import annotations

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.models.layers import global_pool, he_initialise


class PreactivationBlock(nn.Module):
    """BatchNorm and ReLU before each of two 3x3 convolutions, and a shortcut.

    Where the number of channels changes, the shortcut is a 1x1 convolution of the *activated* input.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.convShortcut = None  # named as in the published checkpoints
        if in_channels != channels:
            self.convShortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, in_channels, H, W); returns (N, channels, H / stride, W / stride)."""
        active = F.relu(self.bn1(maps))
        residual = self.conv2(self.dropout(F.relu(self.bn2(self.conv1(active)))))
        return residual + (maps if self.convShortcut is None else self.convShortcut(active))


class WideResNet(nn.Module):
    """Stem, three stages of pre-activation blocks, BatchNorm and ReLU, global average pooling, classifier.

    Layers for taps, with their shapes for 32x32 inputs and width k: ``block1`` (N, 16k, 32, 32), ``block2``
    (N, 32k, 16, 16), ``block3`` (N, 64k, 8, 8), all before activation; ``relu`` (N, 64k, 8, 8) after it; ``pool``
    (N, 64k); ``fc`` (N, num_classes).

    Args:
        depth: number of layers, 6n + 4.
        width: factor k on the channels 16, 32, 64.
        num_classes: length of the output.
        in_channels: channels of the input.
        dropout: probability of dropping an activation between a block's convolutions, in [0, 1).
    """

    def __init__(self, depth: int, width: int, num_classes: int, in_channels: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"a wide ResNet's depth is 6n + 4 (10, 16, 22, …), got {depth}")
        blocks = (depth - 4) // 6
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.block1 = _stage(16, 16 * width, blocks, 1, dropout)
        self.block2 = _stage(16 * width, 32 * width, blocks, 2, dropout)
        self.block3 = _stage(32 * width, 64 * width, blocks, 2, dropout)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.relu = nn.ReLU()
        self.pool = global_pool()
        self.fc = nn.Linear(64 * width, num_classes)
        he_initialise(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Pictures (N, in_channels, H, W); returns logits (N, num_classes)."""
        maps = self.block3(self.block2(self.block1(self.conv1(inputs))))
        return self.fc(self.pool(self.relu(self.bn1(maps))))


def _stage(in_channels: int, channels: int, blocks: int, stride: int, dropout: float) -> nn.Sequential:
    first = PreactivationBlock(in_channels, channels, stride, dropout)
    others = (PreactivationBlock(channels, channels, 1, dropout) for _ in range(blocks - 1))
    return nn.Sequential(OrderedDict(layer=nn.Sequential(first, *others)))


def wrn_16_1(num_classes: int, in_channels: int = 3, dropout: float = 0.0) -> WideResNet:
    """16 layers, 0.18 M parameters."""
    return WideResNet(16, 1, num_classes, in_channels, dropout)


def wrn_16_2(num_classes: int, in_channels: int = 3, dropout: float = 0.0) -> WideResNet:
    """16 layers, twice the channels, 0.70 M parameters."""
    return WideResNet(16, 2, num_classes, in_channels, dropout)


def wrn_40_1(num_classes: int, in_channels: int = 3, dropout: float = 0.0) -> WideResNet:
    """40 layers, 0.57 M parameters."""
    return WideResNet(40, 1, num_classes, in_channels, dropout)


def wrn_40_2(num_classes: int, in_channels: int = 3, dropout: float = 0.0) -> WideResNet:
    """40 layers, twice the channels, 2.26 M parameters."""
    return WideResNet(40, 2, num_classes, in_channels, dropout)
