"""Scale-decoupled distillation (SDD: Wei et al. 2024, arXiv:2403.13512): soft targets for parts of a picture.

The classifier is applied not only to the mean of the last map but to the means of its regions, so that the student
learns what the teacher sees where. Regions on whose class teacher's whole and part disagree weigh double.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.classes import class_numbers, mean_over_labelled, other_classes, true_class
from kd_lightning.losses.dkd import OtherClassesLoss, TrueClassLoss
from kd_lightning.losses.heads import classifier_of
from kd_lightning.losses.inputs import checked_temperature, full_precision
from kd_lightning.outputs import ModelOutput


def regional_vectors(maps: Tensor, levels: Sequence[int]) -> Tensor:
    """Means over regions, the whole first: maps (N, D, H, W) give (N, R, D), R the sum of the squared levels.

    The finest level is averaged from the map, the coarser ones from it, as the authors do.
    """
    finest = F.adaptive_avg_pool2d(maps, max(levels))
    pooled = [F.adaptive_avg_pool2d(finest, level).flatten(2) for level in sorted(levels)]
    return torch.cat(pooled, dim=2).transpose(1, 2)


class RegionalLoss(nn.Module):
    """DKD of the whole and of each region: ``sum_ir w_ir (alpha TCKD_ir + beta NCKD_ir) / (N R)``.

    ``w`` is 2 where the teacher is right about the whole and wrong about the region or the other way round, else 1.
    Its classifiers are the models' own last linear layers (:meth:`bind`).

    Args:
        tap: of the map before the global mean, for both models.
        temperature: softening T, > 0.
        alpha, beta: weights of DKD's two parts, >= 0.
        levels: regions a side, for example (1, 2, 4).
        gamma: weight of NKD's second part, >= 0: SDD-NKD, ``sum_ir w_ir NKD_ir / (N R)``, in place of DKD; None: DKD.
        form: "paper", or "authors_code", whose NKD leaves the true class among the others.
    """

    def __init__(
        self,
        tap: str = "maps",
        temperature: float = 4.0,
        alpha: float = 1.0,
        beta: float = 8.0,
        levels: Sequence[int] = (1, 2, 4),
        gamma: float | None = None,
        form: str = "paper",
    ) -> None:
        super().__init__()
        if form not in ("paper", "authors_code") or (gamma is not None and gamma < 0):
            raise UserError(f"SDD needs form paper or authors_code and gamma >= 0, got {form!r} and {gamma}")
        self.gamma, self.form = gamma, form
        if not levels or min(levels) < 1:
            raise UserError(f"levels must be numbers >= 1, got {list(levels)}")
        self.tap, self.alpha, self.beta, self.levels = tap, float(alpha), float(beta), sorted(levels)
        temperature = checked_temperature(temperature)
        self.temperature = temperature
        self.true_class, self.other_classes = TrueClassLoss(temperature), OtherClassesLoss(temperature)
        self._classifiers: list[nn.Linear] = []  # a list hides them from this module's parameters

    def bind(self, student_model: nn.Module, teacher_model: nn.Module) -> None:
        """Take both models' classifiers."""
        self._classifiers = [classifier_of(student_model, "student"), classifier_of(teacher_model, "teacher")]

    def forward(self, student: ModelOutput, teacher: ModelOutput, target: Tensor) -> Tensor:
        """Maps (N, D, H, W) under the tap's name, target of shape (N,); returns a scalar >= 0."""
        if not self._classifiers:
            raise RuntimeError("RegionalLoss has no classifiers yet: call bind(student_model, teacher_model) first")
        ours, theirs = (
            self._regions(classifier, output)
            for classifier, output in zip(self._classifiers, (student, teacher), strict=True)
        )
        return self.of_regions(ours, theirs, target)

    def _regions(self, classifier: nn.Linear, output: ModelOutput) -> Tensor:
        maps = output.features.get(self.tap)
        if maps is None or maps.ndim != 4 or maps.shape[1] != classifier.in_features:
            raise UserError(
                f"tap {self.tap!r}: SDD needs the map (N, {classifier.in_features}, H, W) whose mean the classifier takes, "
                f"got {None if maps is None else tuple(maps.shape)}"
            )
        regions: Tensor = classifier(regional_vectors(maps, self.levels))
        return regions.transpose(1, 2)

    def of_regions(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
        """The loss of regional logits (N, C, R), region 0 the whole."""
        numbers, regions = class_numbers(target), teacher_logits.shape[2]
        right = teacher_logits.argmax(dim=1) == numbers[:, None]
        weights = 1 + (right != right[:, :1]).to(student_logits.dtype)
        flat = [full_precision(logits).transpose(1, 2).flatten(0, 1) for logits in (student_logits, teacher_logits)]
        ours, theirs = (ModelOutput(logits) for logits in flat)
        targets = numbers.repeat_interleave(regions)
        if self.gamma is not None:
            return mean_over_labelled(self._normalised(flat[0], flat[1], targets) * weights.flatten(), targets)
        losses = self.alpha * self.true_class.per_sample(ours, theirs, targets) if self.alpha else 0.0
        if self.beta:
            losses = losses + self.beta * self.other_classes.per_sample(ours, theirs, targets)
        return mean_over_labelled(losses * weights.flatten(), targets)

    def _normalised(self, ours: Tensor, theirs: Tensor, targets: Tensor) -> Tensor:
        """NKD of each row of logits (M, C): the true class without softening, the others at the temperature."""
        confidence = true_class(theirs.softmax(dim=1), targets)
        losses = -confidence * true_class(F.log_softmax(ours, dim=1), targets)
        if self.form == "paper":
            ours, theirs = other_classes(ours, targets), other_classes(theirs, targets)
        soft = -((theirs / self.temperature).softmax(dim=1) * F.log_softmax(ours / self.temperature, dim=1)).sum(dim=1)
        return losses + (self.gamma or 0.0) * self.temperature**2 * soft
