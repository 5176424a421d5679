"""A multi-layer perceptron, the model of the first distillation experiments (Hinton et al. 2015, arXiv:1503.02531)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class MLP(nn.Module):
    """Fully connected layers with ReLU between them; inputs of any shape are flattened.

    Layers for taps: ``hidden.0``, ``hidden.1``, … (after ReLU and dropout, shape (N, width)) and ``classifier``.

    Args:
        hidden: widths of the hidden layers; empty gives a linear classifier.
        in_features: numbers in one sample (C * H * W for a picture).
        num_classes: length of the output.
        dropout: probability of dropping a hidden unit, in [0, 1).
    """

    def __init__(self, hidden: Sequence[int], in_features: int, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        blocks = []
        width = in_features
        for units in hidden:
            layers: list[nn.Module] = [nn.Linear(width, units), nn.ReLU()]
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
            blocks.append(nn.Sequential(*layers))
            width = units
        self.hidden = nn.Sequential(*blocks)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs (N, ...) with ``in_features`` numbers a sample; returns logits (N, num_classes)."""
        return self.classifier(self.hidden(inputs.flatten(1)))
