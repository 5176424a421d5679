"""Pictures of a few validation samples, as the task draws them; one that fails is a warning, never a run's end."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from kd_lightning.joints import DataModule, Step, Task
from kd_lightning.outputs import ModelOutput
from kd_lightning.structure import mapped

log = logging.getLogger(__name__)


class Pictures:
    """Draws every so many epochs what the models make of the first samples of a batch.

    Args:
        task: draws (:meth:`kd_lightning.joints.Task.picture`).
        data: the samples' data module: names of classes, normalisation.
        every_n_epochs: 0 draws none.
        samples: drawn at most, if the task's ``picture_samples`` does not say more.
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
            samples = max(self.samples, getattr(self.task, "picture_samples", 0))
            drawn = self.task.picture(first_samples(step, samples), self.data, self.temperature)
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

    def head(leaf: Any) -> Any:
        return leaf[:count] if isinstance(leaf, (Tensor, np.ndarray, list, tuple)) else leaf

    batch = step.batch
    inputs, target, index = (mapped(value, head) for value in (batch.inputs, batch.target, batch.index))
    batch = batch._replace(inputs=inputs, target=target, index=index, also=())
    teacher = None if step.teacher is None else _head_of_output(step.teacher, count)
    return replace(step, batch=batch, student=_head_of_output(step.student, count), teacher=teacher)


def _head_of_output(output: ModelOutput, count: int) -> ModelOutput:
    features = {name: value[:count] for name, value in output.features.items()}
    spread = None if output.spread is None else output.spread[:count]
    return replace(output, logits=output.logits[:count], features=features, spread=spread)
