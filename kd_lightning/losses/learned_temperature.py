"""Curriculum temperature (CTKD: Li et al. 2023, arXiv:2211.16231): an adversary chooses the temperature.

The temperature is learned to make the loss larger, slowly at first: its gradient is multiplied by a factor that goes
from 0 to -1, so that what the student has to match becomes harder as training goes on.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.joints import Clock
from kd_lightning.losses.inputs import paired_logits
from kd_lightning.outputs import ModelOutput


class LearnedTemperatureLoss(nn.Module):
    """Soft targets at a temperature that is learned against the student.

    ``loss = T^2 * mean_i KL( softmax(t_i / T) || softmax(s_i / T) )``, ``T = lowest + width * sigmoid(v)``, v a
    parameter that starts at 1. Its gradient is multiplied by ``lambda(e) = -sin^2(pi e / (2 E))``, e the epoch counted
    from 1, E ``epochs``; -1 from then on. (One temperature for all samples, as in the authors' code; their ``t_end``
    is this ``width``.)

    Args:
        lowest: of the temperatures, > 0.
        width: of their range, > 0.
        epochs: until the adversary has its full strength, >= 1.
        standardise: compare each sample's logits standardised.
    """

    def __init__(self, lowest: float = 1.0, width: float = 20.0, epochs: int = 10, standardise: bool = False) -> None:
        super().__init__()
        if not lowest > 0 or not width > 0 or epochs < 1:
            raise UserError(f"lowest and width must be > 0 and epochs >= 1, got {lowest}, {width} and {epochs}")
        self.lowest, self.width, self.epochs, self.standardise = float(lowest), float(width), epochs, standardise
        self.value = nn.Parameter(torch.ones(1))

    def temperature_at(self, clock: Clock) -> Tensor:
        """The temperature, shape (1,), whose gradient is reversed."""
        done = min(clock.epoch + 1, self.epochs) / self.epochs
        strength = -(math.sin(math.pi / 2 * done) ** 2)
        return self.lowest + self.width * torch.sigmoid(_ScaledGradient.apply(self.value, strength))

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor, clock: Clock) -> Tensor:
        """Logits of shape (N, C) or (N, C, ...); returns a scalar >= 0."""
        student_logits, teacher_logits = paired_logits(student, teacher, self.standardise)
        temperature = self.temperature_at(clock).to(student_logits.dtype)
        ours = F.log_softmax(student_logits / temperature, dim=1)
        theirs = F.log_softmax(teacher_logits / temperature, dim=1)
        losses = F.kl_div(ours, theirs, reduction="none", log_target=True).sum(dim=1)
        return losses.mean() * temperature.square().squeeze()


class _ScaledGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a number."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None
