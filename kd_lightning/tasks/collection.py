"""A task made of a loss and torchmetrics metrics: regression, several labels, segmentation, … in ten lines or a YAML."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from kd_lightning.errors import UserError
from kd_lightning.joints import DataModule
from kd_lightning.metrics.collection import CollectionEvaluator, Metrics, declared
from kd_lightning.outputs import ModelOutput
from kd_lightning.tasks.base import BaseTask


class CollectionTask(BaseTask):
    """What a prediction is, how it is scored and measured; the rest follows from torchmetrics.

    A prediction of shape (N, ..., 1) and a target of shape (N, ...) are brought to one shape first: subtracted as they
    are they would become a table of all pairs. A sample whose target holds nan has no label: it is left out.

    Args:
        name: of the kind of problem: "regression".
        loss: called as ``loss(prediction, target)``, gives a scalar: ``torch.nn.MSELoss()``.
        metrics: torchmetrics metrics by name, or a ``MetricCollection``; each is measured of student and teacher.
        monitor: the name of the metric that chooses the best checkpoint.
        fidelity: metrics of the student's prediction against the teacher's, by name.
        titles: how columns of metrics are headed where the name does not do.
        units: of metrics, by name: ``{"rmse": "kWh"}``.

    A subclass may say what a prediction is (``prediction``), and what of a teacher stands in the target's place when
    fidelity is measured (``as_target``: classes, where metrics compare scores with classes).
    """

    def __init__(
        self,
        name: str,
        loss: Callable[[Tensor, Tensor], Tensor],
        metrics: Metrics,
        monitor: str,
        fidelity: Metrics | None = None,
        titles: Mapping[str, str] | None = None,
        units: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.monitor = name, monitor
        self._loss, self._measures, self._fidelity = loss, dict(metrics.items()), dict((fidelity or {}).items())
        self.metrics = tuple(declared(self._measures, self._fidelity, titles or {}, units or {}))

    def prediction(self, output: ModelOutput) -> Tensor:
        """What loss and metrics see of a model's output: its logits, at least in float32."""
        return output.logits if output.logits.element_size() >= 4 else output.logits.float()

    def as_target(self, output: ModelOutput) -> Tensor:
        """A teacher's output in the target's place: its prediction."""
        return self.prediction(output)

    def loss(self, output: ModelOutput, target: Tensor) -> Tensor:
        """The loss of prediction and target, a scalar; 0 where no sample has a target."""
        prediction, known = self._pair(output, target)
        return self._loss(prediction, known) if known.numel() else output.logits.sum() * 0.0

    def evaluator(self) -> CollectionEvaluator:
        """A fresh set of sums."""
        return CollectionEvaluator(self._measures, self._fidelity, self._pair, self.as_target)

    def check_output(self, output: ModelOutput, data: DataModule, where: str) -> None:
        """Raise a UserError if loss or metrics cannot take a model's output on the data's example."""
        target = data.example_batch().target
        evaluator, batch = self.evaluator(), data.example_batch()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.loss(output, target)
                evaluator.update(output, None, batch)
        except Exception as error:
            given = f"{_described(output.logits)} for targets {_described(target)}"
            text = " ".join(str(error).split())[:200]
            raise UserError(f"{where}: gives {given}, which the task cannot take: {text}") from error

    def _pair(self, output: ModelOutput, target: Tensor) -> tuple[Tensor, Tensor]:
        prediction = self.prediction(output)
        if target.is_floating_point():  # values that are not known: samples without a label
            known = ~target.reshape(len(target), -1).isnan().any(1)
            if not bool(known.all()):
                prediction, target = prediction[known], target[known]
        if prediction.shape == (*target.shape, 1):
            return prediction.squeeze(-1), target
        if target.shape == (*prediction.shape, 1):
            return prediction, target.squeeze(-1)
        return prediction, target


def _described(value: Any) -> str:
    return (
        f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}" if isinstance(value, Tensor) else str(value)
    )
