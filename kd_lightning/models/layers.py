"""Pieces that several of the CIFAR families share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kd_lightning.errors import UserError


class ChannelShuffle(nn.Module):
    """Interleave the channels of ``groups`` equal groups, so that grouped convolutions exchange what they know."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, C, H, W), C divisible by ``groups``; returns the same shape."""
        return maps.unflatten(1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)


class StochasticDepth(nn.Module):
    """Leave a residual branch out for some samples of a batch (Huang et al. 2016, arXiv:1603.09382); in training only.

    What is left is divided by its share, so that the mean stays. Who is left out is drawn from torch's default generator,
    as dropout is: a member's own stream, saved with its state.

    Args:
        rate: probability that a sample's branch is left out, in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """A branch's output (N, ...); returns the same shape."""
        if not self.training or self.rate == 0:
            return branch
        kept = branch.new_empty((len(branch), *[1] * (branch.dim() - 1))).bernoulli_(1 - self.rate)
        return branch * (kept / (1 - self.rate))

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}"


def depth_rates(last: float | None, blocks: int) -> list[float]:
    """Rates of stochastic depth for ``blocks`` blocks: evenly from 0 for the first to ``last``; a single block has ``last``.

    Raises:
        UserError: ``last`` is not in [0, 1).
    """
    last = last or 0.0
    if not 0 <= last < 1:
        raise UserError(f"student.drop_path must be in [0, 1), got {last}")
    return torch.linspace(0, last, blocks).tolist() if blocks > 1 else [last]


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
