"""Something in the form of a teacher, for a trial before anything is fitted or trained."""

from __future__ import annotations

from typing import Any

import torch

from kd_lightning.batch import Batch
from kd_lightning.joints import VALUES
from kd_lightning.outputs import ModelOutput
from kd_lightning.teachers.arrays import PROVIDES
from kd_lightning.teachers.kind import TeacherContext


class StandIn:
    """Answers every sample alike: all classes equally, or the mean of standardised values.

    Args:
        context: of the teacher for which it stands.
        holds: what that one's answers are, see :data:`kd_lightning.teachers.arrays.HOLDS`.
    """

    labels_new_inputs = True

    def __init__(self, context: TeacherContext, holds: str) -> None:
        self.name, self.provides = context.name, PROVIDES[holds]
        if holds == VALUES:
            target = context.encoded(context.datamodule.example_batch().target)
            self._width = tuple(target.reshape(len(target), -1).shape[1:])
        else:
            self._width = (context.classes(),)

    def __call__(self, batch: Batch) -> ModelOutput:
        return ModelOutput(torch.zeros(batch.size, *self._width, device=batch.target.device))

    def to(self, device: torch.device | str) -> StandIn:
        return self

    def verify(self) -> None:
        """It has nothing that could move."""

    def cache_parts(self) -> dict[str, Any]:
        return {"stand_in": list(self._width)}

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "parameters": None, "bytes": None}
