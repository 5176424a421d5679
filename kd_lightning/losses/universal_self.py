"""Universal self-distillation (USKD: Yang et al. 2023, arXiv:2303.13005): soft labels from the student alone.

Without a teacher, a customised soft label has to come from somewhere. The true class's share follows the student's own
certainty; the others' are Zipf's law by rank, the rank taken from the student and from a second, weakly trained
classifier on an earlier layer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.classes import class_numbers, mean_over_labelled, other_classes, true_class
from kd_lightning.losses.inputs import full_precision
from kd_lightning.outputs import ModelOutput

SMALLEST = 1e-6  # added to divisors, as the authors do
SMOOTHING = 0.1  # of the weak classifier's labels
FORMS = ("paper", "authors_code")


class UniversalSelfLoss(nn.Module):
    """Soft labels made of the student's certainty and of Zipf's law.

    ``loss = alpha L_true + beta L_others + mu L_weak``::

        L_true    -mean_i (p_iy^2 + 1 - mean_j p_jy^2) log p_iy                    first factor without gradient
        L_others  -mean_i sum_{c != y} z_i(rank c) log softmax_{c != y}(s_i)_c     z Zipf's law 1 / rank over the others
        L_weak    cross-entropy of the weak classifier with labels smoothed by 0.1

    Ranks are those of the sum of the student's and the weak classifier's probabilities, each over the share that is
    not the true class's; ``form="authors_code"`` takes the student's log-probabilities there, which their repository
    computes. Means are over the samples that have a label.

    Args:
        tap: of the student's earlier layer; maps are averaged to vectors.
        alpha, beta, mu: weights of the three parts, >= 0.
        form: "paper" or "authors_code".
    """

    needs_teacher = False

    def __init__(
        self, tap: str = "middle", alpha: float = 1.0, beta: float = 0.1, mu: float = 0.005, form: str = "paper"
    ) -> None:
        super().__init__()
        if form not in FORMS:
            raise UserError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
        self.form = form
        self.tap, self.alpha, self.beta, self.mu = tap, float(alpha), float(beta), float(mu)
        self.weak: nn.Linear | None = None

    def prepare(self, student: ModelOutput, teacher: ModelOutput | None) -> None:
        """Build the weak classifier for the shapes of this output; a second call changes nothing."""
        if self.weak is None:
            features = self._features(student)
            self.weak = nn.Linear(features.shape[1], student.logits.shape[1]).to(features.device)

    def forward(self, student: ModelOutput, teacher: ModelOutput | None, target: Tensor) -> Tensor:
        """The student's logits (N, C) and its feature under the tap's name, target of shape (N,); returns a scalar."""
        if self.weak is None:
            raise RuntimeError("UniversalSelfLoss has no weak classifier yet: call prepare(student, None) first")
        logits, numbers = full_precision(student.logits), class_numbers(target).clamp(min=0)
        weak_logits = full_precision(self.weak(self._features(student)))
        log = F.log_softmax(logits, dim=1)
        certainty = true_class(log.exp(), numbers).detach().square()
        true = -(certainty + 1 - mean_over_labelled(certainty, target)) * true_class(log, numbers)
        labels = torch.full_like(log, SMOOTHING / log.shape[1]).scatter(1, numbers[:, None], 1 - SMOOTHING)
        labels = labels + (labels > 0.5) * (SMOOTHING / log.shape[1])
        weak = -(labels * F.log_softmax(weak_logits, dim=1)).sum(dim=1)
        others = -(self._zipf(logits, weak_logits, numbers) * F.log_softmax(other_classes(logits, numbers), dim=1))
        return mean_over_labelled(self.alpha * true + self.beta * others.sum(dim=1) + self.mu * weak, target)

    @torch.no_grad()
    def _zipf(self, logits: Tensor, weak_logits: Tensor, numbers: Tensor) -> Tensor:
        """Zipf's law by rank over the classes that are not the true one, (N, C - 1)."""
        scores = torch.zeros_like(logits)
        own = F.log_softmax(logits, dim=1) if self.form == "authors_code" else logits.softmax(dim=1)
        for values in (own, weak_logits.softmax(dim=1)):
            scores = scores + values / (1 - true_class(values, numbers)[:, None] + SMALLEST)
        rank = scores.argsort(dim=1, descending=True).argsort(dim=1)
        law = other_classes(1 / (rank + 1).to(logits.dtype), numbers)
        return law / law.sum(dim=1, keepdim=True)

    def _features(self, student: ModelOutput) -> Tensor:
        if self.tap not in student.features:
            raise UserError(f"a loss needs the student's tap {self.tap!r}: set method.taps.student.{self.tap}")
        features = student.features[self.tap]
        return features.mean(dim=(2, 3)) if features.ndim == 4 else features.flatten(1)
