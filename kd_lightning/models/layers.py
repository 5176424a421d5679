"""Pieces that several of the CIFAR families share."""

from __future__ import annotations

from torch import Tensor, nn


class ChannelShuffle(nn.Module):
    """Interleave the channels of ``groups`` equal groups, so that grouped convolutions exchange what they know."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, C, H, W), C divisible by ``groups``; returns the same shape."""
        return maps.unflatten(1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)


def global_pool() -> nn.Sequential:
    """Average over height and width: maps (N, C, H, W) of any size to vectors (N, C)."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))


def he_initialise(model: nn.Module, linear_std: float | None = None) -> None:
    """Draw convolutions from He et al.'s normal distribution by fan-out (arXiv:1502.01852), biases zero.

    Args:
        model: the module to initialise in place.
        linear_std: standard deviation for linear layers; None leaves their weights as PyTorch draws them.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear) and linear_std is not None:
            nn.init.normal_(module.weight, std=linear_std)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
