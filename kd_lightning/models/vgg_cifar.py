"""VGG networks for 32x32 pictures (Simonyan & Zisserman 2015, arXiv:1409.1556), with BatchNorm and one linear layer.

``vgg8`` has one convolution in each of its five stages. Parameters are named as in RepDistiller's checkpoints of the
networks with BatchNorm, which therefore load.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from kd_lightning.models.layers import global_pool, he_initialise

CHANNELS = (64, 128, 256, 512, 512)


class CifarVGG(nn.Module):
    """Five stages of 3x3 convolutions, BatchNorm and ReLU, the first three followed by 2x2 max-pooling.

    Layers for taps, with their shapes for 32x32 inputs: ``block0`` (N, 64, 32, 32), ``block1`` (N, 128, 16, 16),
    ``block2`` (N, 256, 8, 8), ``block3`` and ``block4`` (N, 512, 4, 4), all after ReLU and before pooling; ``pool``
    (N, 512); ``classifier`` (N, num_classes). Before a stage's last ReLU: ``block1.<last - 1>``.

    Args:
        convolutions: number of convolutions in each of the five stages.
        num_classes: length of the output.
        in_channels: channels of the input.
    """

    def __init__(self, convolutions: Sequence[int], num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        widths = (in_channels, *CHANNELS)
        self.block0, self.block1, self.block2, self.block3, self.block4 = (
            _stage(widths[k], widths[k + 1], convolutions[k]) for k in range(5)
        )
        self.halve = nn.MaxPool2d(2)
        self.pool = global_pool()
        self.classifier = nn.Linear(CHANNELS[-1], num_classes)
        he_initialise(self, linear_std=0.01)

    def forward(self, inputs: Tensor) -> Tensor:
        """Pictures (N, in_channels, H, W) of at least 8x8; returns logits (N, num_classes)."""
        maps = self.halve(self.block0(inputs))
        maps = self.halve(self.block1(maps))
        maps = self.halve(self.block2(maps))
        maps = self.block3(maps)
        if inputs.shape[-1] >= 64:  # larger pictures need one more halving to keep the last maps small
            maps = self.halve(maps)
        return self.classifier(self.pool(self.block4(maps)))


def _stage(in_channels: int, channels: int, convolutions: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for k in range(convolutions):
        layers.append(nn.Conv2d(channels if k else in_channels, channels, 3, padding=1))
        layers += [nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(*layers)


def vgg8(num_classes: int, in_channels: int = 3) -> CifarVGG:
    """Five convolutions, 3.97 M parameters."""
    return CifarVGG((1, 1, 1, 1, 1), num_classes, in_channels)


def vgg11(num_classes: int, in_channels: int = 3) -> CifarVGG:
    """Eight convolutions, 9.28 M parameters."""
    return CifarVGG((1, 1, 2, 2, 2), num_classes, in_channels)


def vgg13(num_classes: int, in_channels: int = 3) -> CifarVGG:
    """Ten convolutions, 9.46 M parameters."""
    return CifarVGG((2, 2, 2, 2, 2), num_classes, in_channels)


def vgg16(num_classes: int, in_channels: int = 3) -> CifarVGG:
    """Thirteen convolutions, 14.77 M parameters."""
    return CifarVGG((2, 2, 3, 3, 3), num_classes, in_channels)


def vgg19(num_classes: int, in_channels: int = 3) -> CifarVGG:
    """Sixteen convolutions, 20.09 M parameters."""
    return CifarVGG((2, 2, 4, 4, 4), num_classes, in_channels)
