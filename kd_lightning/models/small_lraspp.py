"""A small network for masks: torchvision's LR-ASPP head (Howard et al. 2019, arXiv:1905.02244) on a few blocks of ours."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models.segmentation.lraspp import LRASPPHead

from kd_lightning.errors import UserError


class SmallLRASPP(nn.Module):
    """Blocks of two 3x3 convolutions, the first with stride 2; the last block's map and one of less depth make the mask.

    Layers for taps: ``blocks.0``, ``blocks.1``, … (maps (N, channels[k], H / 2^(k+1), W / 2^(k+1))) and ``head``.

    Args:
        channels: output channels of each block, at least two.
        head_channels: inside the head.
        in_channels: of the picture.
        num_classes: C.
    """

    def __init__(
        self, channels: Sequence[int] = (8, 16, 24), head_channels: int = 16, in_channels: int = 3, num_classes: int = 2
    ) -> None:
        super().__init__()
        if len(channels) < 2:
            raise UserError(f"SmallLRASPP needs channels of at least two blocks, got {list(channels)}")
        blocks, width = [], in_channels
        for out_channels in channels:
            blocks.append(
                nn.Sequential(*_convolution(width, out_channels, 2), *_convolution(out_channels, out_channels, 1))
            )
            width = out_channels
        self.blocks = nn.Sequential(*blocks)
        self._low = max(0, len(channels) - 2)
        self.head = LRASPPHead(channels[self._low], channels[-1], num_classes, head_channels)

    def forward(self, inputs: Tensor) -> Tensor:
        """Pictures (N, in_channels, H, W); returns logits (N, num_classes, H, W)."""
        maps = [inputs]
        for block in self.blocks:
            maps.append(block(maps[-1]))
        logits: Tensor = self.head({"low": maps[self._low + 1], "high": maps[-1]})
        return nn.functional.interpolate(logits, size=inputs.shape[-2:], mode="bilinear", align_corners=False)


def _convolution(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
