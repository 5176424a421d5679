"""Alpha-beta divergences (ABKD: Wang et al. 2025, arXiv:2505.04560, after Cichocki et al. 2011) and other divergences.

Forward KL (alpha, beta) = (1, 0) covers everything that the teacher thinks possible, reverse KL (0, 1) only what it
prefers. The family goes smoothly from one to the other; (1/2, 1/2) is four times the squared Hellinger distance.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.inputs import checked_temperature, paired_logits
from kd_lightning.outputs import ModelOutput


def _log_probabilities(student: ModelOutput, teacher: ModelOutput, temperature: float) -> tuple[Tensor, Tensor]:
    student_logits, teacher_logits = paired_logits(student, teacher)
    return F.log_softmax(teacher_logits / temperature, dim=1), F.log_softmax(student_logits / temperature, dim=1)


class AlphaBetaLoss(nn.Module):
    """The alpha-beta divergence from teacher to student.

    ``D = -1/(ab) sum_c ( p^a q^b - a/(a+b) p^(a+b) - b/(a+b) q^(a+b) )`` with p the teacher's and q the student's
    probabilities at temperature T, and its continuous limits where a, b or a + b is 0; averaged over samples. (The
    authors' code divides two of the limits by b or a where the limit has its square, which differs unless that is 1;
    it has no factor T^2, and neither has this.) Probabilities that round to 0 contribute their limit.

    Args:
        alpha, beta: any finite numbers.
        temperature: softening T, > 0.
    """

    def __init__(self, alpha: float = 0.5, beta: float = 0.5, temperature: float = 1.0) -> None:
        super().__init__()
        if not (math.isfinite(alpha) and math.isfinite(beta)):
            raise UserError(f"alpha and beta must be finite numbers, got {alpha} and {beta}")
        self.alpha, self.beta = float(alpha), float(beta)
        self.temperature = checked_temperature(temperature)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Logits of shape (N, C) or (N, C, ...); returns a scalar >= 0."""
        return self.per_sample(student, teacher, target).mean()

    def per_sample(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """The divergence of each sample (and position): (N, ...)."""
        log_p, log_q = _log_probabilities(student, teacher, self.temperature)
        a, b, both = self.alpha, self.beta, self.alpha + self.beta
        if a == 0 and b == 0:
            return (log_p - log_q).square().sum(dim=1) / 2
        if a == 0:
            return self._power(log_q, log_p, b)
        if b == 0:
            return self._power(log_p, log_q, a)
        if both == 0:  # log of a mean of ratios, minus the mean of their logs
            ratio = a * (log_p - log_q)
            return (ratio.exp() - 1 - ratio).sum(dim=1) / a**2
        mixed = (a * log_p + b * log_q).exp()
        pure = a / both * (both * log_p).exp() + b / both * (both * log_q).exp()
        return -(mixed - pure).sum(dim=1) / (a * b)

    @staticmethod
    def _power(log_p: Tensor, log_q: Tensor, a: float) -> Tensor:
        """``sum p^a (log p^a - log q^a) - p^a + q^a`` over a^2: generalised KL between the a-th powers."""
        return (((a * log_p).exp() * a * (log_p - log_q)) - (a * log_p).exp() + (a * log_q).exp()).sum(dim=1) / a**2


class JensenShannonLoss(nn.Module):
    """Jensen-Shannon divergence, possibly skewed: ``w KL(p || m) + (1 - w) KL(q || m)`` with ``m = w p + (1 - w) q``.

    Averaged over samples, in [0, log 2] at w = 1/2; without a factor T^2.

    Args:
        weight: w, in (0, 1): the teacher's share in the mixture.
        temperature: softening T, > 0.
    """

    takes_mixed = True

    def __init__(self, weight: float = 0.5, temperature: float = 1.0) -> None:
        super().__init__()
        if not 0 < weight < 1:
            raise UserError(f"weight must be in (0, 1), got {weight}")
        self.weight, self.temperature = float(weight), checked_temperature(temperature)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Logits of shape (N, C) or (N, C, ...); returns a scalar >= 0."""
        log_p, log_q = _log_probabilities(student, teacher, self.temperature)
        w = self.weight
        log_m = torch.logaddexp(log_p + math.log(w), log_q + math.log(1 - w))
        return (w * log_p.exp() * (log_p - log_m) + (1 - w) * log_q.exp() * (log_q - log_m)).sum(dim=1).mean()


class SkewedLoss(nn.Module):
    """Skewed KL (DistiLLM: Ko et al. 2024, arXiv:2402.03898): the second side is a mixture of both.

    ``KL(p || w p + (1 - w) q)``, or with ``reverse`` ``KL(q || (1 - w) p + w q)``; averaged over samples, without T^2.
    The mixture keeps the ratio bounded, so the gradient does not explode where the student gives nothing.

    Args:
        weight: w, in [0, 1).
        reverse: start from the student.
        temperature: softening T, > 0.
    """

    takes_mixed = True

    def __init__(self, weight: float = 0.1, reverse: bool = False, temperature: float = 1.0) -> None:
        super().__init__()
        if not 0 <= weight < 1:
            raise UserError(f"weight must be in [0, 1), got {weight}")
        self.weight, self.reverse, self.temperature = float(weight), reverse, checked_temperature(temperature)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Logits of shape (N, C) or (N, C, ...); returns a scalar >= 0."""
        log_p, log_q = _log_probabilities(student, teacher, self.temperature)
        one, other = (log_q, log_p) if self.reverse else (log_p, log_q)
        if self.weight > 0:
            other = torch.logaddexp(one + math.log(self.weight), other + math.log(1 - self.weight))
        return (one.exp() * (one - other)).sum(dim=1).mean()
