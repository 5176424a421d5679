"""A small vision transformer for pictures of 8x8 to 32x32 pixels: a student of another kind than its convolutional teacher."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.models.layers import StochasticDepth, depth_rates


class SmallViT(nn.Module):
    """Patches as tokens, transformer blocks, the mean over tokens and a classifier (Dosovitskiy et al. 2021,
    arXiv:2010.11929, with global average pooling instead of the class token).

    Layers for taps: ``blocks.0``, ``blocks.1``, … (tokens (N, L, width), L patches), ``hidden`` (vectors (N, width))
    and ``classifier``.

    Args:
        patch: side of a patch in pixels; divides ``image_size``.
        width: numbers in a token; a multiple of ``heads``.
        depth: transformer blocks, >= 1.
        heads: attention heads of a block.
        in_channels: channels of the input, 1 for grey pictures.
        num_classes: length of the output.
        image_size: height and width of the input in pixels.
        dropout: probability of dropping a number in a block, in [0, 1).
        drop_path: probability that the last block leaves out attention, and its two layers, for a picture in training;
            evenly less for the blocks before it, 0 for the first. In [0, 1); None: 0.
    """

    def __init__(
        self,
        patch: int = 7,
        width: int = 64,
        depth: int = 2,
        heads: int = 4,
        in_channels: int = 1,
        num_classes: int = 10,
        image_size: int = 28,
        dropout: float = 0.0,
        drop_path: float | None = None,
    ) -> None:
        super().__init__()
        if image_size % patch:
            raise UserError(
                f"student.patch: {patch} does not divide pictures of {image_size} pixels a side: give one that does"
            )
        if width % heads:
            raise UserError(
                f"student.width: {width} is no multiple of {heads} heads: change student.width or student.heads"
            )
        self.patches = nn.Conv2d(in_channels, width, kernel_size=patch, stride=patch)
        self.position = nn.Parameter(0.02 * torch.randn(1, (image_size // patch) ** 2, width))
        self.blocks = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(
                    width, heads, 2 * width, dropout, activation="gelu", batch_first=True, norm_first=True
                )
                for _ in range(depth)
            )
        )
        for block, rate in zip(self.blocks, depth_rates(drop_path, depth), strict=True):
            for end in ("dropout1", "dropout2") if rate else ():  # the last thing in each of its two branches
                setattr(block, end, nn.Sequential(getattr(block, end), StochasticDepth(rate)))
        self.hidden = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, num_classes)

    def tokens(self, inputs: Tensor) -> Tensor:
        """What goes into the first block, (N, L, width), of pictures (N, in_channels, image_size, image_size)."""
        tokens: Tensor = self.patches(inputs).flatten(2).transpose(1, 2) + self.position
        return tokens

    def forward(self, inputs: Tensor) -> Tensor:
        """Pictures (N, in_channels, image_size, image_size); returns logits (N, num_classes)."""
        return self.classifier(self.hidden(self.blocks(self.tokens(inputs)).mean(1)))
