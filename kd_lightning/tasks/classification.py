"""Single-label classification: cross-entropy, accuracy, calibration and fidelity to the teacher."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from kd_lightning.batch import UNLABELLED, Batch
from kd_lightning.errors import UserError
from kd_lightning.metrics.calibration import BINS, confidence_gaps, expected_calibration_error
from kd_lightning.metrics.fidelity import agreement, kl_to_teacher
from kd_lightning.metrics.metric import Metric
from kd_lightning.outputs import ModelOutput
from kd_lightning.task_parts import TaskParts

if TYPE_CHECKING:
    from PIL.Image import Image

    from kd_lightning.joints import DataModule, Step


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision is widened to float32; float64 stays."""
    return x if x.dtype == torch.float64 else x.float()


class ClassificationTask(TaskParts):
    """Every sample belongs to one class. ``target`` holds class numbers, ``UNLABELLED`` (-1) where none is known, or
    soft labels: a probability for each class, of the logits' shape.

    Args:
        label_smoothing: share of the target's probability that is spread over all classes, in [0, 1).
    """

    name = "classification"
    monitor = "acc"
    monitor_without_labels = "agreement"
    metrics = (
        Metric("acc", True, share=True, title="accuracy"),
        Metric("loss_task", False, title="task loss"),
        Metric("ece", False, share=True, title="calibration error"),
        Metric("agreement", True, share=True, of="fidelity"),
        Metric("kl_teacher", False, title="KL to the teacher", of="fidelity"),
        Metric("teacher_acc", True, share=True, title="teacher's accuracy", of="teacher", like="acc"),
        Metric("teacher_ece", False, share=True, title="teacher's calibration error", of="teacher", like="ece"),
    )

    def __init__(self, label_smoothing: float = 0.0) -> None:
        if not 0 <= label_smoothing < 1:
            raise UserError(f"task.label_smoothing must be in [0, 1), got {label_smoothing}")
        self.label_smoothing = label_smoothing

    def loss(self, output: ModelOutput, target: Tensor) -> Tensor:
        """Mean cross-entropy over the labelled samples, in float32; exactly 0 where no sample is labelled.

        Logits of shape (N, C) or (N, C, ...), target of shape (N,) or (N, ...), or soft of the logits' shape; returns a
        scalar.
        """
        logits = at_least_float32(output.logits)
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

    def evaluator(self) -> ClassificationEvaluator:
        """A fresh set of sums over an evaluation set."""
        return ClassificationEvaluator(self.label_smoothing)

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


# Places in the evaluator's state: sums over samples, then the calibration bins of student and teacher.
_SAMPLES, _LABELLED, _CORRECT, _LOSS, _TAUGHT, _TAUGHT_LABELLED, _AGREE, _KL, _TEACHER_CORRECT = range(9)
_SUMS = 9


class ClassificationEvaluator:
    """Sums over an evaluation set, in one float64 tensor that adds across batches and processes.

    Accuracy, loss and calibration count labelled samples; agreement and divergence count all of them.
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing
        self._state = torch.zeros(_SUMS + 2 * BINS, dtype=torch.float64)

    @torch.no_grad()
    def update(self, student: ModelOutput, teacher: ModelOutput | None, batch: Batch) -> None:
        """Add one batch: logits of shape (N, C) or (N, C, ...), target of shape (N,) or (N, ...)."""
        log_probs = _log_probs(student.logits)
        soft = _by_sample(batch.target) if batch.target.is_floating_point() else None
        target = batch.target.flatten() if soft is None else soft.argmax(-1)
        labelled = target != UNLABELLED
        confidence, prediction = log_probs.max(-1)
        correct = prediction == target
        loss = self._loss(log_probs, target, soft) * labelled
        columns = [torch.ones_like(confidence), labelled, correct, loss]
        bins = [confidence_gaps(confidence.exp(), correct, labelled)]
        if teacher is not None:
            teacher_log_probs = _log_probs(teacher.logits)
            teacher_confidence, teacher_prediction = teacher_log_probs.max(-1)
            teacher_correct = teacher_prediction == target
            divergence = kl_to_teacher(log_probs, teacher_log_probs)
            columns += [columns[0], labelled, agreement(prediction, teacher_prediction), divergence, teacher_correct]
            bins.append(confidence_gaps(teacher_confidence.exp(), teacher_correct, labelled))
        sums = torch.stack([column.double() for column in columns]).sum(-1)
        if self._state.device != sums.device:
            self._state = self._state.to(sums.device)
        self._state[: sums.numel()] += sums
        for part, gaps in enumerate(bins):
            start = _SUMS + part * BINS
            self._state[start : start + BINS] += gaps

    def _loss(self, log_probs: Tensor, target: Tensor, soft: Tensor | None) -> Tensor:
        """The task's loss of each sample, so that validation and training loss can be compared."""
        if soft is None:
            hard = -log_probs.gather(-1, target.clamp_min(0).unsqueeze(-1)).squeeze(-1)
        else:
            hard = -(soft * log_probs).sum(-1)
        if self.label_smoothing == 0:
            return hard
        return (1 - self.label_smoothing) * hard - self.label_smoothing * log_probs.mean(-1)

    def sync(self, reduce: Callable[[Tensor], Tensor]) -> None:
        """Add up over processes: ``reduce`` sums a tensor over all of them."""
        self._state = reduce(self._state)

    def compute(self) -> dict[str, float]:
        """Metrics by name, fractions in [0, 1] and nats; those of the teacher only where there was one."""
        state = self._state.cpu()
        sums = state[:_SUMS].tolist()
        labelled, taught = sums[_LABELLED], sums[_TAUGHT]
        metrics = {
            "acc": _ratio(sums[_CORRECT], labelled),
            "loss_task": _ratio(sums[_LOSS], labelled),
            "ece": expected_calibration_error(state[_SUMS : _SUMS + BINS], labelled),
        }
        if taught:
            metrics["agreement"] = sums[_AGREE] / taught
            metrics["kl_teacher"] = sums[_KL] / taught
            metrics["teacher_acc"] = _ratio(sums[_TEACHER_CORRECT], sums[_TAUGHT_LABELLED])
            metrics["teacher_ece"] = expected_calibration_error(state[_SUMS + BINS :], sums[_TAUGHT_LABELLED])
        return metrics


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _log_probs(logits: Tensor) -> Tensor:
    """(N, C) or (N, C, ...) logits to (samples, C) log-probabilities."""
    return F.log_softmax(at_least_float32(_by_sample(logits)), dim=-1)


def _by_sample(values: Tensor) -> Tensor:
    """(N, C) or (N, C, ...) to (samples, C)."""
    return values.movedim(1, -1).flatten(0, -2) if values.ndim > 2 else values
