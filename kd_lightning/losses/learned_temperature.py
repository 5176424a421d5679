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
from kd_lightning.losses.classes import mean_over_labelled, other_classes
from kd_lightning.losses.dkd import binary_log
from kd_lightning.losses.inputs import paired_logits
from kd_lightning.outputs import ModelOutput

DECAYS = ("cosine", "linear")


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
        first, last: lambda before the first epoch and after the last one.
        decay: "cosine", or the authors' "linear", see :func:`decayed`.
        decoupled: DKD's two weights, of the true class and of the others, in place of soft targets; None: soft targets.
    """

    def __init__(
        self,
        lowest: float = 1.0,
        width: float = 20.0,
        epochs: int = 10,
        standardise: bool = False,
        first: float = 0.0,
        last: float = -1.0,
        decay: str = "cosine",
        decoupled: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        if not lowest > 0 or not width > 0 or epochs < 1:
            raise UserError(f"lowest and width must be > 0 and epochs >= 1, got {lowest}, {width} and {epochs}")
        self.lowest, self.width, self.epochs, self.standardise = float(lowest), float(width), epochs, standardise
        if decay not in DECAYS:
            raise UserError(f"decay must be one of {', '.join(DECAYS)}, got {decay!r}")
        if decoupled is not None and len(decoupled) != 2:
            raise UserError(f"decoupled must be two weights, of the true class and of the others, got {decoupled}")
        self.first, self.last, self.decay = float(first), float(last), decay
        self.decoupled = None if decoupled is None else tuple(decoupled)
        self.value = nn.Parameter(torch.ones(1))

    def temperature_at(self, clock: Clock) -> Tensor:
        """The temperature, shape (1,), whose gradient is reversed."""
        strength = decayed(clock.epoch + 1, self.first, self.last, self.epochs, self.decay)
        return self.lowest + self.width * torch.sigmoid(_ScaledGradient.apply(self.value, strength))

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor, clock: Clock) -> Tensor:
        """Logits of shape (N, C) or (N, C, ...); returns a scalar >= 0."""
        student_logits, teacher_logits = paired_logits(student, teacher, self.standardise)
        temperature = self.temperature_at(clock).to(student_logits.dtype)
        if self.decoupled is not None:
            return self._decoupled(student_logits / temperature, teacher_logits / temperature, target, temperature)
        ours = F.log_softmax(student_logits / temperature, dim=1)
        theirs = F.log_softmax(teacher_logits / temperature, dim=1)
        losses = F.kl_div(ours, theirs, reduction="none", log_target=True).sum(dim=1)
        return losses.mean() * temperature.square().squeeze()

    def _decoupled(self, ours: Tensor, theirs: Tensor, target: Tensor, temperature: Tensor) -> Tensor:
        """DKD of softened logits (N, C), over labelled samples."""
        assert self.decoupled is not None
        pairs = [
            (binary_log(ours, target), binary_log(theirs, target)),
            (other_classes(ours, target).log_softmax(dim=1), other_classes(theirs, target).log_softmax(dim=1)),
        ]
        losses = [F.kl_div(q, p, reduction="none", log_target=True).sum(dim=1) for q, p in pairs]
        weighted = self.decoupled[0] * losses[0] + self.decoupled[1] * losses[1]
        return mean_over_labelled(weighted, target) * temperature.square().squeeze()


def decayed(epoch: int, first: float, last: float, epochs: int, decay: str = "cosine") -> float:
    """A number that goes from ``first`` to ``last`` in so many epochs and stays there.

    ``linear`` is the authors' code as it is: ``-k (first - last) / epochs`` with k at most ``epochs - 1``, which is a line
    from ``first`` for first = 0 only, and stops one step before ``last``.
    """
    epoch = max(epoch, 0)
    if decay == "linear":
        return -min(epoch, epochs - 1) * (first - last) / epochs
    return last + (first - last) / 2 * (1 + math.cos(math.pi * min(epoch, epochs) / epochs))


class _ScaledGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a number."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None
