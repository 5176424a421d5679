"""What is measured in regression: errors in the data's units, closeness to the teacher, quality of the stated spread."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kd_lightning.batch import Batch
from kd_lightning.metrics.metric import FIDELITY, TEACHER, Metric
from kd_lightning.metrics.regression import ClosenessSums, ErrorSums
from kd_lightning.outputs import ModelOutput

if TYPE_CHECKING:
    from kd_lightning.tasks.regression import RegressionTask


def figures_of(unit: str, spread: bool) -> tuple[Metric, ...]:
    """What is measured.

    Args:
        unit: of the target.
        spread: whether models say how sure they are.
    """
    mine = [
        Metric("rmse", False, title="RMSE", unit=unit),
        Metric("mae", False, title="MAE", unit=unit),
        Metric("r2", True, title="R²"),
        Metric("loss_task", False, title="task loss"),
    ]
    if spread:
        mine.append(Metric("nll", False, title="NLL"))
        mine.append(Metric("calibration", False, share=True, title="calibration error of the spread"))
    theirs = [
        mine_._replace(name=f"teacher_{mine_.name}", title=f"teacher's {mine_.heading}", of=TEACHER, like=mine_.name)
        for mine_ in mine
        if mine_.name != "loss_task"
    ]
    fidelity = [
        Metric("rmse_teacher", False, title="RMSE to the teacher", unit=unit, of=FIDELITY),
        Metric("corr_teacher", True, title="correlation with the teacher", of=FIDELITY),
    ]
    return (*mine, *fidelity, *theirs)


class RegressionEvaluator:
    """Sums over an evaluation set; errors count known values, closeness to the teacher all of them.

    Args:
        task: says what outputs mean.
    """

    def __init__(self, task: RegressionTask) -> None:
        values = len(task.std)
        self.task = task
        self._student, self._teacher = ErrorSums(values), ErrorSums(values)
        self._closeness = ClosenessSums(values)
        self._spreads = torch.zeros(2, dtype=torch.float64)  # batches in which student and teacher had a spread

    @torch.no_grad()
    def update(self, student: ModelOutput, teacher: ModelOutput | None, batch: Batch) -> None:
        target = self.task.encode(batch.target)
        for k, (sums, output) in enumerate(((self._student, student), (self._teacher, teacher))):
            if output is None:
                continue
            predicted = self.task.predicted(output, torch.nan_to_num(target))
            losses = predicted.mean.new_zeros(predicted.mean.shape)
            if k == 0:
                losses = self.task.form.losses(output, torch.nan_to_num(target))
            sums.add(predicted, target, losses)
            self._spreads[k] += predicted.cumulative is not None
        if teacher is not None:
            self._closeness.add(*(self.task.form.mean(output) for output in (student, teacher)))

    def sync(self, reduce: Callable[[Tensor], Tensor]) -> None:
        for sums in (self._student, self._teacher, self._closeness):
            sums.state = reduce(sums.state)
        self._spreads = reduce(self._spreads)

    def compute(self) -> dict[str, float]:
        """Metrics by name, in the data's units; those of the teacher only where there was one."""
        std = self.task.std
        found = self._student.figures(std, bool(self._spreads[0]))
        if self._closeness.samples:
            teacher = self._teacher.figures(std, bool(self._spreads[1]))
            found |= {f"teacher_{name}": value for name, value in teacher.items() if name != "loss_task"}
            found |= self._closeness.figures(std)
        return found
