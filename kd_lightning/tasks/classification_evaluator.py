"""Sums of a classification's figures over an evaluation set."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from kd_lightning.batch import UNLABELLED, Batch
from kd_lightning.metrics.calibration import BINS, confidence_gaps, expected_calibration_error
from kd_lightning.metrics.fidelity import agreement, kl_to_teacher
from kd_lightning.outputs import ModelOutput


class Scored(Protocol):
    """What an evaluator asks of a classification."""

    top5: bool

    def rows(self, logits: Tensor) -> Tensor:
        """What losses are computed from, (samples, C)."""
        ...

    def losses(self, rows: Tensor, target: Tensor, soft: Tensor | None) -> Tensor:
        """The loss of each sample."""
        ...


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision is widened to float32; float64 stays."""
    return x if x.dtype == torch.float64 else x.float()


# Places in the evaluator's state: sums over samples, then the calibration bins of student and teacher.
_SAMPLES, _LABELLED, _CORRECT, _LOSS, _TOP5, _TAUGHT, _TAUGHT_LABELLED, _AGREE, _KL, _TEACHER_CORRECT, _TEACHER_TOP5 = (
    range(11)
)
_SUMS = 11


class ClassificationEvaluator:
    """Sums over an evaluation set, in one float64 tensor that adds across batches and processes.

    Accuracy, loss and calibration count labelled samples; agreement and divergence count all of them.

    Args:
        task: whose losses they are.
    """

    def __init__(self, task: Scored) -> None:
        self._task = task
        self._state = torch.zeros(_SUMS + 2 * BINS, dtype=torch.float64)

    @torch.no_grad()
    def update(self, student: ModelOutput, teacher: ModelOutput | None, batch: Batch) -> None:
        """Add one batch: logits of shape (N, C) or (N, C, ...), target of shape (N,) or (N, ...)."""
        log_probs = log_probs_of(student.logits)
        soft = by_sample(batch.target) if batch.target.is_floating_point() else None
        target = batch.target.flatten() if soft is None else soft.argmax(-1)
        labelled = target != UNLABELLED
        confidence, prediction = log_probs.max(-1)
        correct = prediction == target
        loss = self._task.losses(self._task.rows(student.logits), target, soft) * labelled
        columns = [torch.ones_like(confidence), labelled, correct, loss, self._top5(log_probs, target)]
        bins = [confidence_gaps(confidence.exp(), correct, labelled)]
        if teacher is not None:
            teacher_log_probs = log_probs_of(teacher.logits)
            teacher_confidence, teacher_prediction = teacher_log_probs.max(-1)
            teacher_correct = teacher_prediction == target
            divergence = kl_to_teacher(log_probs, teacher_log_probs)
            columns += [columns[0], labelled, agreement(prediction, teacher_prediction), divergence, teacher_correct]
            columns.append(self._top5(teacher_log_probs, target))
            bins.append(confidence_gaps(teacher_confidence.exp(), teacher_correct, labelled))
        sums = torch.stack([column.double() for column in columns]).sum(-1)
        if self._state.device != sums.device:
            self._state = self._state.to(sums.device)
        self._state[: sums.numel()] += sums
        for part, gaps in enumerate(bins):
            start = _SUMS + part * BINS
            self._state[start : start + BINS] += gaps

    def _top5(self, log_probs: Tensor, target: Tensor) -> Tensor:
        """Whether the label is among the five most probable classes; all False where nobody asks."""
        if not self._task.top5:
            return torch.zeros_like(target, dtype=torch.bool)
        return (log_probs.topk(5, dim=-1).indices == target[:, None]).any(-1)

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
        if self._task.top5:
            metrics["top5"] = _ratio(sums[_TOP5], labelled)
        if taught:
            metrics["agreement"] = sums[_AGREE] / taught
            metrics["kl_teacher"] = sums[_KL] / taught
            metrics["teacher_acc"] = _ratio(sums[_TEACHER_CORRECT], sums[_TAUGHT_LABELLED])
            if self._task.top5:
                metrics["teacher_top5"] = _ratio(sums[_TEACHER_TOP5], sums[_TAUGHT_LABELLED])
            metrics["teacher_ece"] = expected_calibration_error(state[_SUMS + BINS :], sums[_TAUGHT_LABELLED])
        return metrics


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def log_probs_of(logits: Tensor) -> Tensor:
    """(N, C) or (N, C, ...) logits to (samples, C) log-probabilities."""
    return F.log_softmax(at_least_float32(by_sample(logits)), dim=-1)


def by_sample(values: Tensor) -> Tensor:
    """(N, C) or (N, C, ...) to (samples, C)."""
    return values.movedim(1, -1).flatten(0, -2) if values.ndim > 2 else values
