"""Single-label classification: cross-entropy, accuracy, calibration and fidelity to the teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kd_lightning.batch import UNLABELLED
from kd_lightning.errors import UserError
from kd_lightning.metrics.metric import Metric
from kd_lightning.outputs import ModelOutput
from kd_lightning.task_parts import TaskParts
from kd_lightning.tasks.classification_evaluator import (
    ClassificationEvaluator,
    at_least_float32,
    by_sample,
    log_probs_of,
)
from kd_lightning.tasks.yes_or_no import yes_or_no_losses

if TYPE_CHECKING:
    from PIL.Image import Image

    from kd_lightning.joints import DataModule, Step


MANY = 20
"""From so many classes on, top-5 accuracy is measured as well."""
TOP5 = (
    Metric("top5", True, share=True, title="top-5 accuracy"),
    Metric("teacher_top5", True, share=True, title="teacher's top-5 accuracy", of="teacher", like="top5"),
)


class ClassificationTask(TaskParts):
    """Every sample belongs to one class. ``target`` holds class numbers, ``UNLABELLED`` (-1) where none is known, or
    soft labels: a probability for each class, of the logits' shape.

    The loss of a sample is ``sum_c q_c w_c (1 - p_c)^focal (-log p_c)``, q the (smoothed) label; averaged over samples.
    With ``bce`` each class is asked for by itself, ``sum_c w_c [q_c l(z_c) + (1 - q_c) l(-z_c)] / C`` of logits z with
    ``l(z) = (1 - sigmoid(z))^focal (-log sigmoid(z))``; probabilities that are shown are those of the softmax all the same.

    Args:
        label_smoothing: share of the target's probability that is spread over all classes, in [0, 1).
        class_weights: w, one number > 0 a class, or "balanced": ``N / (C n_c)`` by the labelled training samples, so that
            every class counts alike. They are not divided out again (as torch's ``weight`` is): their mean over the
            training samples is what the learning rate meets, 1 for "balanced".
        focal: exponent >= 0 that makes what is right already count less (Lin et al. 2017, arXiv:1708.02002, eq. 4).
        bce: binary cross-entropy in place of cross-entropy (Wightman et al. 2021, arXiv:2110.00476, section 4.1).
    """

    name = "classification"
    monitor = "acc"
    monitor_without_labels = "agreement"
    takes_mixed = True
    metrics: tuple[Metric, ...] = (
        Metric("acc", True, share=True, title="accuracy", counted=True),
        Metric("loss_task", False, title="task loss"),
        Metric("ece", False, share=True, title="calibration error"),
        Metric("agreement", True, share=True, of="fidelity"),
        Metric("kl_teacher", False, title="KL to the teacher", of="fidelity"),
        Metric("teacher_acc", True, share=True, title="teacher's accuracy", of="teacher", like="acc"),
        Metric("teacher_ece", False, share=True, title="teacher's calibration error", of="teacher", like="ece"),
    )

    def __init__(
        self,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | Literal["balanced"] | None = None,
        focal: float = 0.0,
        bce: bool | None = None,
    ) -> None:
        if not 0 <= label_smoothing < 1:
            raise UserError(f"task.label_smoothing must be in [0, 1), got {label_smoothing}")
        if not focal >= 0:
            raise UserError(f"task.focal must be >= 0, got {focal}")
        self.label_smoothing, self.focal, self.bce = label_smoothing, focal, bool(bce)
        self._balanced = class_weights == "balanced"
        given = None if class_weights is None or isinstance(class_weights, str) else list(class_weights)
        if (isinstance(class_weights, str) and not self._balanced) or any(not weight > 0 for weight in given or ()):
            raise UserError(f"task.class_weights must be balanced, or a number > 0 for each class, got {class_weights}")
        self.class_weights = None if given is None else torch.tensor(given)
        self.top5 = False

    def fit(self, data: DataModule) -> None:
        """Count the labelled training samples' classes, for balanced weights; with many classes top-5 accuracy counts too."""
        classes = data.sizes().get("num_classes")
        self._declare(classes is not None and classes >= MANY)
        if self._balanced:
            self.class_weights = _balanced_weights(data, classes)
        if self.class_weights is not None and classes is not None and len(self.class_weights) != classes:
            raise UserError(f"task.class_weights: {len(self.class_weights)} numbers, the data has {classes} classes")

    def fitted(self) -> dict[str, Any]:
        """Top-5 accuracy, if it counts, and balanced weights; empty where there is nothing of the kind."""
        weights = self.class_weights.tolist() if self._balanced and self.class_weights is not None else None
        return {**({"top5": True} if self.top5 else {}), **({"class_weights": weights} if weights else {})}

    def restore(self, fitted: Mapping[str, Any]) -> None:
        self._declare(bool(fitted.get("top5")))
        if "class_weights" in fitted:
            self.class_weights = torch.tensor(fitted["class_weights"])

    def _declare(self, top5: bool) -> None:
        self.top5 = top5
        self.metrics = (*type(self).metrics, *(TOP5 if top5 else ()))

    def loss(self, output: ModelOutput, target: Tensor) -> Tensor:
        """Mean loss of the labelled samples, in float32; exactly 0 where no sample is labelled.

        Logits of shape (N, C) or (N, C, ...), target of shape (N,) or (N, ...), or soft of the logits' shape; returns a
        scalar.
        """
        logits = at_least_float32(output.logits)
        if self.class_weights is not None or self.focal or self.bce:
            return self._own_loss(logits, target)
        if target.is_floating_point():
            return F.cross_entropy(logits, target.to(logits.dtype), label_smoothing=self.label_smoothing)
        if target.device.type == "cpu":
            if target.numel() == 0 or int(target.max()) == UNLABELLED:
                return logits.sum() * 0.0
            return F.cross_entropy(logits, target, ignore_index=UNLABELLED, label_smoothing=self.label_smoothing)
        # No `if` here: asking a GPU for a number would stall it. A batch without labels gets some label, then weight 0.
        any_label = (target != UNLABELLED).any()
        target = torch.where(any_label, target, 0)
        loss = F.cross_entropy(logits, target, ignore_index=UNLABELLED, label_smoothing=self.label_smoothing)
        return loss * any_label

    def _own_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        soft = by_sample(target) if target.is_floating_point() else None
        numbers = target.flatten() if soft is None else soft.argmax(-1)
        known = numbers != UNLABELLED
        losses = self.losses(self.rows(logits), numbers, soft)
        return torch.where(known, losses, 0.0).sum() / known.sum().clamp(min=1)

    def mixed_loss(self, output: ModelOutput, target: Tensor, partner_target: Tensor, weight: Tensor) -> Tensor:
        """The mean loss of mixed samples, ``w loss(target) + (1 - w) loss(partner_target)``, in float32: the loss
        with that label of two classes, to which a half without a label adds nothing and counts for nothing.

        Logits (N, C), class numbers (N,) twice, weight w (N,) in [0, 1]; returns a scalar, 0 where no half is labelled.
        """
        rows = self.rows(output.logits)
        total, labelled = rows.new_zeros(()), rows.new_zeros(())
        for numbers, share in ((target, weight), (partner_target, 1 - weight)):
            share = torch.where(numbers != UNLABELLED, share.to(rows.dtype), 0.0)
            total = total + torch.where(share > 0, share * self.losses(rows, numbers, None), 0.0).sum()
            labelled = labelled + share.sum()
        return total / torch.where(labelled > 0, labelled, 1.0)

    def rows(self, logits: Tensor) -> Tensor:
        """What losses are computed from: log-probabilities (N, C), or the logits with ``bce``, of logits (N, C, ...)."""
        return at_least_float32(by_sample(logits)) if self.bce else log_probs_of(logits)

    def losses(self, rows: Tensor, target: Tensor, soft: Tensor | None) -> Tensor:
        """The loss of each sample, (N,), of :meth:`rows` (N, C) and class numbers (N,) or soft labels (N, C)."""
        smoothing = self.label_smoothing
        if self.class_weights is None and not self.focal and not self.bce:
            if soft is None:
                hard = -rows.gather(-1, target.clamp_min(0).unsqueeze(-1)).squeeze(-1)
            else:
                hard = -(soft * rows).sum(-1)
            return hard if smoothing == 0 else (1 - smoothing) * hard - smoothing * rows.mean(-1)
        classes = rows.shape[-1]
        wanted = F.one_hot(target.clamp_min(0), classes).to(rows.dtype) if soft is None else soft.to(rows.dtype)
        counted = (1 - smoothing) * wanted + smoothing / classes
        weights = None if self.class_weights is None else self.class_weights.to(rows)
        if self.bce:
            each = yes_or_no_losses(rows, counted, self.focal)
            return (each if weights is None else each * weights).mean(-1)
        if weights is not None:
            counted = counted * weights
        if self.focal:
            counted = counted * (-torch.expm1(rows)).clamp_min(0).pow(self.focal)
        return -(counted * rows).sum(-1)

    def evaluator(self) -> ClassificationEvaluator:
        """A fresh set of sums over an evaluation set."""
        return ClassificationEvaluator(self)

    def check_output(self, output: ModelOutput, data: DataModule, where: str) -> None:
        """Raise a UserError if a model does not answer for the data's classes; ``where`` is its configuration key."""
        classes = data.sizes().get("num_classes")
        target = data.example_batch().target
        if target.is_floating_point() and target.shape != output.logits.shape:
            raise UserError(
                "data: targets are values, a classification takes class numbers: set data.target_type=classes, or choose "
                "another task (task=NAME)"
            )
        if not target.is_floating_point() and target.dim() != max(1, output.logits.dim() - 1):
            raise UserError(
                f"data: a target has the shape {tuple(target.shape[1:])}, {where} answers with {tuple(output.logits.shape[1:])}: "
                "a classification takes one class number for each answer; choose another task (task=NAME)"
            )
        if classes is None:  # without any label nobody knows how many there are
            return
        if output.logits.dim() < 2 or output.logits.shape[1] != classes:
            given = output.logits.shape[1] if output.logits.dim() > 1 else "no"
            if output.logits.dim() < 2 or given == 1:
                raise UserError(
                    f"{where}: answers with one value a sample, as a regressor does, which is another task: a classification "
                    f"takes logits, one for each of the data's {classes} classes"
                )
            raise UserError(f"{where}: answers for {given} classes, the data has {classes} classes: set num_classes")

    def useless(self, metrics: Mapping[str, float], data: DataModule) -> str | None:
        """A teacher whose accuracy is within a fifth of guessing among equally frequent classes."""
        chance = 1.0 / data.sizes()["num_classes"]
        if not metrics[self.monitor] <= 1.2 * chance:
            return None
        return (
            f"no better than chance (accuracy {metrics[self.monitor]:.3f}): check its checkpoint, its normalization "
            "(teacher.normalization) and that its classes are numbered as the data's"
        )

    def predict(self, output: ModelOutput) -> Tensor:
        """Class probabilities (N, C, ...)."""
        return output.logits.softmax(1)

    def picture(self, step: Step, data: DataModule, temperature: float) -> Image | None:
        """The samples with both models' probabilities; None without a teacher and where inputs are no images.

        Logits of shape (N, C) only: of a model that answers for every pixel there is no such picture.
        """
        inputs, student = step.batch.inputs, step.student.logits
        if step.teacher is None or not isinstance(inputs, Tensor) or inputs.dim() != 4 or student.dim() != 2:
            return None
        from kd_lightning.tasks.classification_picture import sample_picture

        return sample_picture(
            inputs, step.batch.target, student, step.teacher.logits, temperature, data.class_names, data.mean, data.std
        )


def _balanced_weights(data: DataModule, classes: int | None) -> Tensor:
    targets = data.train_targets()
    if targets is None or classes is None or targets.is_floating_point():
        raise UserError("task.class_weights=balanced: the training labels are no class numbers that can be counted")
    known = targets.flatten()
    counts = torch.bincount(known[known != UNLABELLED], minlength=classes).float()
    absent = (counts == 0).nonzero().flatten().tolist()
    if absent:
        raise UserError(
            f"task.class_weights=balanced: no labelled training sample is of class {absent[0]}: give a number for each class"
        )
    return counts.sum() / (classes * counts)
