"""Entropy-weighted distillation (EA-KD: Su et al. 2025, arXiv:2311.13621): samples that say more count more."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.inputs import checked_temperature, paired_logits
from kd_lightning.losses.mixed import takes_mixed
from kd_lightning.outputs import ModelOutput

SMALLEST = 1e-10  # added inside the logarithm, as the authors do


class EntropyWeighted(nn.Module):
    """Any logit term, its samples weighed by the models' entropies.

    ``loss = mean_i w_i * term_i`` with ``w_i = (H_i(t) + H_i(t) H_i(s) / H_max) / 2``: entropies of the probabilities
    softened by ``weight_temperature``, without a gradient. (The authors' code takes ``H_max`` = 100 on CIFAR-100, where
    the paper means the entropy of a uniform answer, log C: give ``highest`` to do the same.)

    Args:
        term: a loss with ``per_sample(student, teacher, target)``, such as SoftTargetLoss or DKD's terms.
        weight_temperature: softening of the weights, > 0.
        highest: H_max, > 0; None: log C.
        standardise: weights from each sample's logits standardised.
    """

    def __init__(
        self, term: nn.Module, weight_temperature: float = 3.0, highest: float | None = None, standardise: bool = False
    ) -> None:
        super().__init__()
        per_sample = getattr(term, "per_sample", None)
        if not callable(per_sample):
            raise UserError(f"{type(term).__name__} has no loss of each sample (per_sample): it cannot be weighted")
        if highest is not None and not highest > 0:
            raise UserError(f"highest must be > 0, got {highest}")
        self.term, self.highest, self.standardise = term, highest, standardise
        self._per_sample: Callable[[ModelOutput, ModelOutput, Tensor], Tensor] = per_sample
        self.weight_temperature = checked_temperature(weight_temperature, "weight_temperature")

    @property
    def takes_mixed(self) -> bool:
        """Whether the weighed term does."""
        return takes_mixed(self.term)

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Logits of shape (N, C), target of shape (N,); returns a scalar >= 0."""
        losses = self._per_sample(student, teacher, target)
        return (self.weights(student, teacher) * losses).mean()

    @torch.no_grad()
    def weights(self, student: ModelOutput, teacher: ModelOutput) -> Tensor:
        """The weight of each sample, (N,)."""
        logits = paired_logits(student, teacher, self.standardise)
        ours, theirs = (_entropy(values / self.weight_temperature) for values in logits)
        return (theirs + theirs * ours / (self.highest or math.log(logits[0].shape[1]))) / 2


def _entropy(logits: Tensor) -> Tensor:
    probabilities = F.softmax(logits, dim=1)
    return -(probabilities * (probabilities + SMALLEST).log()).sum(dim=1)
