"""What the numbers of a model's output are in a regression: values, Gaussians, or distributions over bins.

``N`` samples, ``D`` values a sample, ``K`` bins. Everything here is in standardised units (:mod:`.regression`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kd_lightning.batch import UNLABELLED
from kd_lightning.errors import UserError
from kd_lightning.joints import LOGITS, SPREAD, VALUES
from kd_lightning.losses.gaussian import histogram
from kd_lightning.losses.inputs import full_precision
from kd_lightning.outputs import ModelOutput

LOG_VARIANCE = 10.0
"""Predicted log-variances are kept within plus and minus this: a spread of 0.0067 to 148 of the targets' own."""
MARGIN = 0.1
"""How far bins reach beyond the training targets, as a share of their range."""


class ValueForm:
    """D numbers, the prediction itself."""

    provides = frozenset({VALUES})
    has_spread = False

    def __init__(self, loss: Literal["mse", "huber", "mae"] = "mse", delta: float = 1.0) -> None:
        self.loss_name, self.delta = loss, delta

    def width(self, values: int) -> int:
        """How many numbers a model answers with for D values."""
        return values

    def read(self, output: ModelOutput) -> ModelOutput:
        """Outputs (N,) or (N, D) as (N, D)."""
        return replace(output, logits=_two_dimensional(output.logits))

    def mean(self, output: ModelOutput) -> Tensor:
        """The prediction, (N, D)."""
        return full_precision(output.logits)

    def require_its_own(self, output: ModelOutput, where: str) -> None:
        """Raise a UserError where an output is none of this form."""

    def losses(self, output: ModelOutput, target: Tensor) -> Tensor:
        """Of each value, (N, D): squared, absolute, or Huber's."""
        prediction = self.mean(output)
        if self.loss_name == "mse":
            return (prediction - target).square()
        if self.loss_name == "mae":
            return (prediction - target).abs()
        return F.huber_loss(prediction, target, reduction="none", delta=self.delta)

    def log_density(self, output: ModelOutput, target: Tensor) -> Tensor | None:
        """Of the target under the prediction, (N, D); None without a spread."""
        return None

    def cumulative(self, output: ModelOutput, target: Tensor) -> Tensor | None:
        """Predicted probability of a value up to the target, (N, D); None without a spread."""
        return None

    def deviation(self, output: ModelOutput) -> Tensor | None:
        """Predicted standard deviation, (N, D); None without a spread."""
        return None

    def for_terms(self, target: Tensor) -> Tensor:
        """The target (N, D) as loss terms take it."""
        return target

    def fit(self, target: Tensor) -> None:
        """Nothing to learn of the training targets."""

    def fitted(self) -> dict[str, Any]:
        """What :meth:`fit` learned."""
        return {}

    def restore(self, fitted: Mapping[str, Any]) -> None:
        """Take up what :meth:`fitted` gave."""

    def rescaled(self, output: ModelOutput, scale: Tensor, shift: Tensor, fitted: Mapping[str, Any]) -> ModelOutput:
        """An output whose unit u is ``scale * u + shift`` here; ``scale`` and ``shift`` of shape (D,)."""
        return replace(output, logits=output.logits * scale.to(output.logits) + shift.to(output.logits))


class GaussianForm(ValueForm):
    """A mean and a log-variance: D means, then D log-variances (Nix & Weigend 1994), or a ModelOutput with a ``spread``.

    The loss is the negative log-likelihood ``( log v + (y - mu)^2 / v + log 2 pi ) / 2``.
    """

    provides = frozenset({VALUES, SPREAD})
    has_spread = True

    def width(self, values: int) -> int:
        return 2 * values

    def read(self, output: ModelOutput) -> ModelOutput:
        logits, spread = _two_dimensional(output.logits), output.spread
        if spread is None:
            if logits.shape[1] % 2:
                raise UserError(
                    f"a model answers with {logits.shape[1]} numbers: task.output=gaussian takes a mean and a log-variance "
                    "of each value (num_classes: auto gives as many)"
                )
            logits, spread = logits.chunk(2, dim=1)
            spread = spread.clamp(-LOG_VARIANCE, LOG_VARIANCE)
        return replace(output, logits=logits, spread=_two_dimensional(spread))

    def losses(self, output: ModelOutput, target: Tensor) -> Tensor:
        mean, log_variance = self.mean(output), self._log_variance(output)
        return (log_variance + (target - mean).square() * (-log_variance).exp() + math.log(2 * math.pi)) / 2

    def log_density(self, output: ModelOutput, target: Tensor) -> Tensor | None:
        return None if output.spread is None else -self.losses(output, target)

    def cumulative(self, output: ModelOutput, target: Tensor) -> Tensor | None:
        deviation = self.deviation(output)
        return None if deviation is None else torch.special.ndtr((target - self.mean(output)) / deviation)

    def deviation(self, output: ModelOutput) -> Tensor | None:
        return None if output.spread is None else (self._log_variance(output) / 2).exp()

    def rescaled(self, output: ModelOutput, scale: Tensor, shift: Tensor, fitted: Mapping[str, Any]) -> ModelOutput:
        moved = super().rescaled(output, scale, shift, fitted)
        spread = output.spread
        return moved if spread is None else replace(moved, spread=spread + 2 * scale.to(spread).log())

    def _log_variance(self, output: ModelOutput) -> Tensor:
        if output.spread is None:
            raise UserError("task.output=gaussian: the output has no spread (mean and log-variance)")
        return full_precision(output.spread)


class BinsForm(ValueForm):
    """Logits of K bins for each value (HL-Gauss, Imani & White 2018, arXiv:1806.04613; Farebrother et al. 2024,
    arXiv:2403.03950): (N, K), or (N, K, D) for several values. The prediction is the expectation over the bins' centres.

    The loss is the cross-entropy with a Gaussian around the target, cut into bins; what methods for classes do with
    logits (temperature and all) they do with these. Targets outside the bins count as lying at their end.

    Args:
        bins: K, >= 2.
        sigma: of the Gaussian, in widths of a bin, > 0.
    """

    provides = frozenset({LOGITS})
    has_spread = True

    def __init__(self, bins: int = 50, sigma: float = 0.75) -> None:
        super().__init__()
        self.bins, self.sigma = bins, sigma
        self.low, self.high = -4.0, 4.0

    def width(self, values: int) -> int:
        return self.bins * values

    def read(self, output: ModelOutput) -> ModelOutput:
        logits = output.logits
        if logits.dim() == 3 and logits.shape[1] == self.bins:
            return output
        if logits.dim() != 2 or logits.shape[1] % self.bins:
            raise UserError(
                f"a model answers in the shape {tuple(logits.shape[1:])}: task.output=bins takes {self.bins} numbers of each "
                "value (num_classes: auto gives as many)"
            )
        several = logits.shape[1] > self.bins
        return replace(output, logits=logits.reshape(len(logits), self.bins, -1)) if several else output

    def require_its_own(self, output: ModelOutput, where: str) -> None:
        if output.logits.dim() < 2 or output.logits.shape[1] != self.bins:
            given = tuple(output.logits.shape[1:])
            raise UserError(f"{where}: answers in the shape {given}, task.output=bins takes logits of {self.bins} bins")

    def mean(self, output: ModelOutput) -> Tensor:
        masses = self._masses(output)
        return torch.einsum("nkd,k->nd", masses, self._centres(masses))

    def losses(self, output: ModelOutput, target: Tensor) -> Tensor:
        log_masses = self._logits(output).log_softmax(1)
        wanted = self._histograms(target)
        return -(wanted * log_masses).sum(1)

    def log_density(self, output: ModelOutput, target: Tensor) -> Tensor | None:
        log_masses = self._logits(output).log_softmax(1)
        place, _ = self._place(target)
        return log_masses.gather(1, place[:, None]).squeeze(1) - math.log(self._bin_width)

    def cumulative(self, output: ModelOutput, target: Tensor) -> Tensor | None:
        masses = self._masses(output)
        place, within = self._place(target)
        own = masses.gather(1, place[:, None]).squeeze(1)
        return masses.cumsum(1).gather(1, place[:, None]).squeeze(1) - own * (1 - within)

    def deviation(self, output: ModelOutput) -> Tensor | None:
        masses = self._masses(output)
        gaps = self._centres(masses)[None, :, None] - self.mean(output)[:, None]
        return ((masses * gaps.square()).sum(1) + self._bin_width**2 / 12).sqrt()

    def for_terms(self, target: Tensor) -> Tensor:
        known = ~target.isnan()
        number = torch.where(known, self._place(torch.nan_to_num(target))[0], UNLABELLED)
        return number[:, 0] if number.shape[1] == 1 else number

    def fit(self, target: Tensor) -> None:
        """Bins from a little below the smallest training target to a little above the largest."""
        known = target[~target.isnan()]
        if not known.numel():  # four standard deviations up and down
            return
        low, high = float(known.min()), float(known.max())
        margin = MARGIN * max(high - low, 1e-3)
        self.low, self.high = low - margin, high + margin

    def fitted(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high}

    def restore(self, fitted: Mapping[str, Any]) -> None:
        self.low, self.high = float(fitted["low"]), float(fitted["high"])

    def rescaled(self, output: ModelOutput, scale: Tensor, shift: Tensor, fitted: Mapping[str, Any]) -> ModelOutput:
        """The same logits where the bins are the same ones; there is no other way."""
        factor, offset = float(scale[0]), float(shift[0])
        theirs = [float(fitted[end]) * factor + offset for end in ("low", "high")]
        same = all(abs(a - b) < 1e-4 for a, b in zip(theirs, (self.low, self.high), strict=True))
        if not same:
            raise UserError(
                "task.output=bins: the teacher was trained on other targets, so that its bins are others: train it on the "
                "student's (teacher.data), or take task.output=value or gaussian"
            )
        return output

    @property
    def _bin_width(self) -> float:
        return (self.high - self.low) / self.bins

    def _centres(self, like: Tensor) -> Tensor:
        number = torch.arange(self.bins, dtype=like.dtype, device=like.device)
        return self.low + (number + 0.5) * self._bin_width

    def _logits(self, output: ModelOutput) -> Tensor:
        logits = full_precision(output.logits)
        return logits if logits.dim() == 3 else logits[..., None]

    def _masses(self, output: ModelOutput) -> Tensor:
        return self._logits(output).softmax(1)

    def _histograms(self, target: Tensor) -> Tensor:
        sigma = self.sigma * self._bin_width
        flat = histogram(target.flatten(), self.low, self.high, self.bins, sigma, clamp=True)
        return flat.reshape(*target.shape, self.bins).movedim(-1, 1)

    def _place(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Number of the target's bin, and where in it the target lies, in [0, 1]: both (N, D)."""
        scaled = ((target - self.low) / self._bin_width).clamp(0, self.bins)
        number = scaled.long().clamp(max=self.bins - 1)
        return number, scaled - number


def _two_dimensional(values: Tensor) -> Tensor:
    return values[:, None] if values.dim() == 1 else values
