"""Pictures of a few validation samples, as the task draws them; one that fails is a warning, never a run's end."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from kd_lightning.joints import DataModule, Step, Task
from kd_lightning.outputs import ModelOutput

log = logging.getLogger(__name__)


class Pictures:
    """Draws every so many epochs what the models make of the first samples of a batch.

    Args:
        task: draws (:meth:`kd_lightning.joints.Task.picture`).
        data: the samples' data module: names of classes, normalisation.
        every_n_epochs: 0 draws none.
        samples: drawn at most.
        temperature: at which probabilities are shown.
        name: of the run, for the warning.
    """

    def __init__(
        self, task: Task, data: DataModule, every_n_epochs: int, samples: int, temperature: float = 1.0, name: str = ""
    ) -> None:
        self.task, self.data, self.name = task, data, name
        self.every_n_epochs, self.samples, self.temperature = every_n_epochs, samples, temperature
        self._failed = False

    def __call__(self, step: Step, epoch: int) -> np.ndarray | None:
        """The picture, shape (height, width, 3), uint8; None where none is due, and where there is nothing to draw."""
        if not self.every_n_epochs or epoch % self.every_n_epochs or self._failed:
            return None
        try:
            drawn = self.task.picture(first_samples(step, self.samples), self.data, self.temperature)
            return None if drawn is None else np.asarray(drawn.convert("RGB"))
        except Exception as error:
            self._failed = True  # it would fail in every epoch
            text = " ".join(str(error).split())
            log.warning(
                "%s: no pictures, %s.picture failed (%s: %s); pictures.every_n_epochs=0 turns them off",
                self.name, type(self.task).__name__, type(error).__name__, text[:200],
            )  # fmt: skip
            return None


def first_samples(step: Step, count: int) -> Step:
    """The step with the first ``count`` of its samples, and of what the models answered for them."""
    batch = step.batch._replace(
        inputs=_head(step.batch.inputs, count),
        target=_head(step.batch.target, count),
        index=_head(step.batch.index, count),
        also=(),
    )
    teacher = None if step.teacher is None else _head_of_output(step.teacher, count)
    return replace(step, batch=batch, student=_head_of_output(step.student, count), teacher=teacher)


def _head_of_output(output: ModelOutput, count: int) -> ModelOutput:
    features = {name: value[:count] for name, value in output.features.items()}
    spread = None if output.spread is None else output.spread[:count]
    return replace(output, logits=output.logits[:count], features=features, spread=spread)


def _head(value: Any, count: int) -> Any:
    """The first samples of any structure of tensors, arrays and lists (of texts, say)."""
    if isinstance(value, (Tensor, np.ndarray)):
        return value[:count]
    if isinstance(value, Mapping):
        return {key: _head(item, count) for key, item in value.items()}
    if isinstance(value, tuple):
        items = [_head(item, count) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if isinstance(value, list):
        nested = any(isinstance(item, (Tensor, np.ndarray, Mapping, tuple, list)) for item in value)
        return [_head(item, count) for item in value] if nested else value[:count]
    return value
