"""A small convolutional network for 8x8 and 28x28 pictures: seconds of training without a GPU."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from kd_lightning.errors import UserError


class SmallCNN(nn.Module):
    """Blocks of 3x3 convolution, BatchNorm, ReLU and 2x2 max-pooling, then one hidden layer and the classifier.

    Layers for taps: ``blocks.0``, ``blocks.1``, … (maps (N, channels[k], H / 2^(k+1), W / 2^(k+1))), ``hidden``
    (vectors (N, hidden)) and ``classifier``.

    Args:
        channels: output channels of each block; each block halves height and width (rounding down).
        hidden: width of the hidden layer; 0 leaves it out.
        in_channels: channels of the input, 1 for grey pictures.
        num_classes: length of the output.
        image_size: height and width of the input in pixels, at least 2 ** len(channels).
        dropout: probability of dropping a hidden unit, in [0, 1).
    """

    def __init__(
        self,
        channels: Sequence[int] = (16, 32),
        hidden: int = 64,
        in_channels: int = 1,
        num_classes: int = 10,
        image_size: int = 28,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        size = image_size // 2 ** len(channels)
        if size < 1:
            raise UserError(
                f"SmallCNN with {len(channels)} blocks needs pictures of at least {2 ** len(channels)} pixels a side, "
                f"got image_size {image_size}: give fewer channels"
            )
        blocks = []
        width = in_channels
        for out_channels in channels:
            blocks.append(
                nn.Sequential(
                    nn.Conv2d(width, out_channels, kernel_size=3, padding=1, bias=False),
                    nn.BatchNorm2d(out_channels),
                    nn.ReLU(),
                    nn.MaxPool2d(2),
                )
            )
            width = out_channels
        self.blocks = nn.Sequential(*blocks)
        width *= size * size
        self.hidden = nn.Sequential()
        if hidden:
            self.hidden.extend([nn.Linear(width, hidden), nn.ReLU()])
            width = hidden
        if dropout > 0:
            self.hidden.append(nn.Dropout(dropout))
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Pictures (N, in_channels, image_size, image_size); returns logits (N, num_classes)."""
        return self.classifier(self.hidden(self.blocks(inputs).flatten(1)))
