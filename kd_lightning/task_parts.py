"""What a task may leave out, and what then stands in: nothing is learned from the data, outputs are taken as they are.

A kind of problem whose models answer in other units than the data's (a standardised target), or whose output has several
parts in one tensor (mean and log-variance, bins), overrides these; nobody else has to know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MethodType
from typing import Any

from torch import Tensor

from kd_lightning.errors import UserError
from kd_lightning.joints import LOGITS, DataModule, Task
from kd_lightning.outputs import ModelOutput


class TaskParts:
    """The parts of :class:`kd_lightning.joints.Task` that a task may leave out."""

    provides: frozenset[str] = frozenset({LOGITS})
    picture_samples: int = 0
    choosers: Sequence[str] = ()
    needs_labels: bool = True
    takes_mixed: bool = False
    learns_alone: bool = True

    def fit(self, data: DataModule) -> None:
        """Nothing is learned from the data."""

    def fitted(self) -> dict[str, Any]:
        """Nothing was."""
        return {}

    def restore(self, fitted: Mapping[str, Any]) -> None:
        """Nothing to take up again."""

    def mixed_loss(self, output: ModelOutput, target: Tensor, partner_target: Tensor, weight: Tensor) -> Tensor:
        """Is not asked for: such samples are refused before."""
        raise NotImplementedError(f"{type(self).__name__} has no loss of mixed samples")

    def sizes(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """A model is as large as the data say."""
        return dict(sizes)

    def read(self, output: ModelOutput) -> ModelOutput:
        """As the model gave it."""
        return output

    def encode(self, target: Any) -> Any:
        """As the data have it."""
        return target

    def for_terms(self, target: Any) -> Any:
        """The same as :meth:`encode`."""
        return self.encode(target)

    def predict(self, output: ModelOutput) -> Tensor:
        """The outputs as they are."""
        return output.logits

    def deviation(self, output: ModelOutput) -> Tensor | None:
        """None."""
        return None

    def exported(self, output: ModelOutput) -> Tensor:
        """The outputs as they are.

        Raises:
            UserError: there is a spread besides them, which would be lost.
        """
        if output.spread is not None:
            raise UserError("the student answers with a spread besides its values; an export holds one tensor")
        return output.logits

    def imported(self, answer: Tensor) -> ModelOutput:
        """The outputs alone."""
        return ModelOutput(answer)

    def describe_exported(self) -> dict[str, Any]:
        """Nothing is to be said."""
        return {}

    def recode(self, output: ModelOutput, fitted: Mapping[str, Any]) -> ModelOutput:
        """The same: nothing is fitted that could differ."""
        return output


_PARTS = (
    "provides", "picture_samples", "choosers", "needs_labels", "takes_mixed", "mixed_loss", "learns_alone", "fit", "fitted", "restore", "sizes", "read", "encode", "for_terms", "predict", "recode",
    "exported", "imported", "describe_exported",
)  # fmt: skip


def completed(task: Task) -> Task:
    """The task, with these answers in place of what it leaves out."""
    for name in _PARTS:
        if not hasattr(task, name):
            default = getattr(TaskParts, name)
            setattr(task, name, MethodType(default, task) if callable(default) else default)
    return task
