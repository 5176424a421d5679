"""Semantic segmentation: a class for every pixel. Soft targets are those of each pixel (``method=kd``), or say where in the
picture each class is (``method=cwd_logits``, Shu et al. 2021, arXiv:2011.13256)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from kd_lightning.batch import UNLABELLED, Batch
from kd_lightning.errors import UserError
from kd_lightning.metrics.metric import Metric
from kd_lightning.outputs import ModelOutput
from kd_lightning.tasks.base import BaseTask
from kd_lightning.tasks.classification import at_least_float32

if TYPE_CHECKING:
    from PIL.Image import Image

    from kd_lightning.joints import DataModule, Step


class SegmentationTask(BaseTask):
    """Logits (N, C, H, W), a target of class numbers (N, H, W); pixels with ``UNLABELLED`` (-1) count nowhere.

    Args:
        class_weights: of each class in the loss, >= 0; None: equal.
    """

    name = "segmentation"
    monitor = "miou"
    monitor_without_labels = "agreement"
    metrics = (
        Metric("miou", True, share=True, title="mIoU"),
        Metric("pixel_acc", True, share=True, title="pixel accuracy"),
        Metric("loss_task", False, title="task loss"),
        Metric("agreement", True, share=True, title="pixels that agree", of="fidelity"),
        Metric("teacher_miou", True, share=True, title="teacher's mIoU", of="teacher", like="miou"),
        Metric("teacher_pixel_acc", True, share=True, title="teacher's pixel accuracy", of="teacher", like="pixel_acc"),
    )

    def __init__(self, class_weights: list[float] | None = None) -> None:
        if class_weights is not None and (not class_weights or min(class_weights) < 0 or not sum(class_weights)):
            raise UserError(f"task.class_weights must be numbers >= 0, not all 0, or null; got {class_weights}")
        self.class_weights = None if class_weights is None else torch.tensor(class_weights)

    def loss(self, output: ModelOutput, target: Tensor) -> Tensor:
        """Mean cross-entropy over the labelled pixels, in float32; exactly 0 where no pixel is labelled; a scalar.

        With class weights ``sum_i w_{y_i} CE_i / sum_i w_{y_i}``.
        """
        logits = at_least_float32(output.logits)
        weights = None if self.class_weights is None else self.class_weights.to(logits)
        total = F.cross_entropy(logits, target, weights, ignore_index=UNLABELLED, reduction="sum")
        known = target != UNLABELLED
        size = known.sum() if weights is None else (weights[target.clamp_min(0)] * known).sum()
        return total / size.clamp_min(torch.finfo(logits.dtype).tiny if weights is not None else 1)

    def evaluator(self) -> SegmentationEvaluator:
        """A fresh table of counts."""
        return SegmentationEvaluator(self)

    def check_output(self, output: ModelOutput, data: DataModule, where: str) -> None:
        """Raise a UserError where a model does not answer for every pixel and the data's classes."""
        target, shape = data.example_batch().target, tuple(output.logits.shape)
        if target.is_floating_point() or target.dim() != 3:
            raise UserError(
                f"data: a segmentation takes a class number for each pixel, these targets have the shape {tuple(target.shape[1:])}: "
                "give masks (data=image_masks), or choose another task (task=NAME)"
            )
        if len(shape) != 4 or shape[2:] != tuple(target.shape[1:]):
            raise UserError(
                f"{where}: answers with {shape[1:]} for masks of {tuple(target.shape[1:])} pixels: a segmentation takes logits "
                "(C, H, W) of the masks' size; let the network enlarge what it gives"
            )
        classes = data.sizes().get("num_classes")
        if classes == 1 < shape[1]:
            raise UserError(
                "data: all masks hold class 0 only (255 counts as no label): write 1 for the second class, of black and white "
                "masks in 0 and 255 by mask // 255"
            )
        if classes is not None and shape[1] != classes:
            raise UserError(f"{where}: answers for {shape[1]} classes, the data has {classes} classes: set num_classes")
        if self.class_weights is not None and len(self.class_weights) != shape[1]:
            raise UserError(f"task.class_weights: {len(self.class_weights)} weights for {shape[1]} classes")

    def useless(self, metrics: Mapping[str, float], data: DataModule) -> str | None:
        """A teacher whose mIoU is about what a single class everywhere would have."""
        chance = 1.0 / data.sizes()["num_classes"]
        if not metrics[self.monitor] <= chance:
            return None
        return (
            f"no better than one class everywhere (mIoU {metrics[self.monitor]:.3f}): check its checkpoint, its normalization "
            "(teacher.normalization) and that its classes are numbered as the data's"
        )

    def predict(self, output: ModelOutput) -> Tensor:
        """The probability of each class in each pixel, (N, C, H, W)."""
        return at_least_float32(output.logits).softmax(1)

    def picture(self, step: Step, data: DataModule, temperature: float) -> Image | None:
        """The samples, their masks, and what both models make of them, side by side."""
        inputs = step.batch.inputs
        if not isinstance(inputs, Tensor) or inputs.dim() != 4 or step.student.logits.dim() != 4:
            return None
        from kd_lightning.tasks.segmentation_picture import mask_picture

        teacher = None if step.teacher is None else step.teacher.logits
        return mask_picture(
            inputs, step.batch.target, step.student.logits, teacher, data.class_names, data.mean, data.std
        )


# Rows of the evaluator's table: true class by predicted class of the student, then of the teacher
_SUMS = 5
_PIXELS, _LOSS, _WEIGHT, _TAUGHT, _AGREE = range(_SUMS)


class SegmentationEvaluator:
    """Counts of pixels by true and predicted class (C, C), of student and teacher, over a whole evaluation set."""

    def __init__(self, task: SegmentationTask) -> None:
        self._task = task
        self._sums = torch.zeros(_SUMS, dtype=torch.float64)
        self._tables: Tensor | None = None

    @torch.no_grad()
    def update(self, student: ModelOutput, teacher: ModelOutput | None, batch: Batch) -> None:
        """Add one batch: logits (N, C, H, W), target (N, H, W)."""
        target, classes = batch.target, student.logits.shape[1]
        known = target != UNLABELLED
        labels = target[known]
        ours = student.logits.argmax(1)
        theirs = None if teacher is None else teacher.logits.argmax(1)
        tables = [_counts(labels, ours[known], classes)]
        tables.append(torch.zeros_like(tables[0]) if theirs is None else _counts(labels, theirs[known], classes))
        count, loss = known.sum().double(), self._task.loss(student, target).double()
        agree = 0.0 if theirs is None else (ours == theirs).sum().double()
        sums = torch.stack([torch.as_tensor(v, dtype=torch.float64, device=target.device) for v in (
            count, loss * count, count, 0.0 if theirs is None else float(ours.numel()), agree
        )])  # fmt: skip
        both = torch.stack(tables)
        self._tables = both if self._tables is None else self._tables + both
        self._sums = sums if self._sums.device != sums.device else self._sums + sums

    def sync(self, reduce: Callable[[Tensor], Tensor]) -> None:
        """Add up over processes: ``reduce`` sums a tensor over all of them."""
        self._sums = reduce(self._sums)
        if self._tables is not None:
            self._tables = reduce(self._tables)

    def compute(self) -> dict[str, float]:
        """Metrics by name, shares in [0, 1]; those of the teacher only where there was one."""
        sums = self._sums.cpu()
        pixels = float(sums[_PIXELS])
        metrics = {
            "miou": math.nan,
            "pixel_acc": math.nan,
            "loss_task": float(sums[_LOSS]) / pixels if pixels else math.nan,
        }
        if self._tables is None:
            return metrics
        ours, theirs = self._tables.cpu()
        metrics |= {"miou": mean_intersection_over_union(ours), "pixel_acc": _accuracy(ours)}
        if float(sums[_TAUGHT]):
            metrics["agreement"] = float(sums[_AGREE] / sums[_TAUGHT])
            metrics |= {"teacher_miou": mean_intersection_over_union(theirs), "teacher_pixel_acc": _accuracy(theirs)}
        return metrics


def mean_intersection_over_union(counts: Tensor) -> float:
    """Mean over the classes that occur, in truth or prediction, of pixels with both over pixels with either.

    Counts (C, C) by true and predicted class, of a whole set; NaN without any.
    """
    both = counts.diagonal()
    either = counts.sum(0) + counts.sum(1) - both
    present = either > 0
    return float((both[present] / either[present]).mean()) if bool(present.any()) else math.nan


def _accuracy(counts: Tensor) -> float:
    total = float(counts.sum())
    return float(counts.diagonal().sum()) / total if total else math.nan


def _counts(labels: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """Pixels by true and predicted class, float64 (C, C)."""
    return torch.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes).double()
