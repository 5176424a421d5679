"""MobileNetV2 for 32x32 pictures (Sandler et al. 2018, arXiv:1801.04381), as the distillation literature shrinks it.

``mobilenet_v2_half`` has half the width and expansion 6. The paper's second stage strides, this one does not: a 32x32
picture then ends in maps of 2x2. Parameters are named as in
RepDistiller's checkpoints, which therefore load.
"""

from __future__ import annotations

from torch import Tensor, nn

from kd_lightning.models.layers import global_pool, he_initialise

# Expand by the given factor?, channels, blocks, stride of the first block.
STAGES = (
    (False, 16, 1, 1),
    (True, 24, 2, 1),
    (True, 32, 3, 2),
    (True, 64, 4, 2),
    (True, 96, 3, 1),
    (True, 160, 3, 2),
    (True, 320, 1, 1),
)
LAST_CHANNELS = 1280


class InvertedResidual(nn.Module):
    """Expand by a 1x1 convolution, filter each channel by a 3x3, project back linearly; a shortcut if shapes agree."""

    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.conv = nn.Sequential(
            *_convolution(in_channels, inner, 1),
            *_convolution(inner, inner, 3, stride, groups=inner),
            nn.Conv2d(inner, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.has_shortcut = stride == 1 and in_channels == channels

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, in_channels, H, W); returns (N, channels, H / stride, W / stride)."""
        return maps + self.conv(maps) if self.has_shortcut else self.conv(maps)


class CifarMobileNetV2(nn.Module):
    """Strided stem, seven stages of inverted residuals, a 1x1 convolution, global average pooling, classifier.

    Layers for taps, with their shapes for 32x32 inputs and half width: ``conv1`` (N, 16, 16, 16), ``blocks.1``
    (N, 12, 16, 16), ``blocks.2`` (N, 16, 8, 8), ``blocks.4`` (N, 48, 4, 4), ``blocks.6`` (N, 160, 2, 2), ``pool``
    (N, 1280), ``classifier`` (N, num_classes). The ends of blocks are linear: their values may be negative.

    Args:
        expansion: factor by which a block widens inside, T in the literature.
        width: factor on all channels but the last 1280.
        num_classes: length of the output.
        in_channels: channels of the input.
    """

    def __init__(self, expansion: int, width: float, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        channels = int(32 * width)
        self.conv1 = nn.Sequential(*_convolution(in_channels, channels, 3, stride=2))
        self.blocks = nn.ModuleList()
        for expands, full_channels, repeats, stride in STAGES:
            stage = nn.Sequential()
            for k in range(repeats):
                out_channels = int(full_channels * width)
                factor = expansion if expands else 1
                stage.append(InvertedResidual(channels, out_channels, 1 if k else stride, factor))
                channels = out_channels
            self.blocks.append(stage)
        last = int(LAST_CHANNELS * max(width, 1.0))
        self.conv2 = nn.Sequential(*_convolution(channels, last, 1))
        self.pool = global_pool()
        self.classifier = nn.Sequential(nn.Linear(last, num_classes))
        he_initialise(self, linear_std=0.01)

    def forward(self, inputs: Tensor) -> Tensor:
        """Pictures (N, in_channels, H, W); returns logits (N, num_classes)."""
        maps = self.conv1(inputs)
        for stage in self.blocks:
            maps = stage(maps)
        return self.classifier(self.pool(self.conv2(maps)))


def _convolution(
    in_channels: int, channels: int, kernel_size: int, stride: int = 1, groups: int = 1
) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(
        in_channels, channels, kernel_size, stride, padding=kernel_size // 2, groups=groups, bias=False
    )
    return convolution, nn.BatchNorm2d(channels), nn.ReLU()


def mobilenet_v2_half(num_classes: int, in_channels: int = 3) -> CifarMobileNetV2:
    """Half width, expansion 6, 0.81 M parameters."""
    return CifarMobileNetV2(6, 0.5, num_classes, in_channels)
