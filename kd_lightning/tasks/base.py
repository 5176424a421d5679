"""What a task need not say: a base class with the answers that suit most, and the check that a task is whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from kd_lightning.errors import UserError
from kd_lightning.metrics.metric import STUDENT, Metric
from kd_lightning.outputs import ModelOutput
from kd_lightning.task_parts import TaskParts

if TYPE_CHECKING:
    from PIL.Image import Image

    from kd_lightning.joints import DataModule, Evaluator, Step, Task

MEMBERS = ("name", "metrics", "monitor", "loss", "evaluator", "check_output", "useless", "picture")
"""What :class:`kd_lightning.joints.Task` asks for."""


class BaseTask(TaskParts):
    """Any output suits, no teacher is known to be useless, nothing is drawn: override what you know better.

    A task of one's own may inherit this and has to give ``name``, ``metrics``, ``monitor``, ``loss`` and ``evaluator``
    (see :class:`kd_lightning.joints.Task`).
    """

    name: str
    metrics: Sequence[Metric]
    monitor: str

    def loss(self, output: ModelOutput, target: Any) -> Tensor:
        """The hard loss: a scalar."""
        raise NotImplementedError(f"{type(self).__name__} must define loss(output, target)")

    def evaluator(self) -> Evaluator:
        """A fresh set of sums."""
        raise NotImplementedError(f"{type(self).__name__} must define evaluator()")

    def check_output(self, output: ModelOutput, data: DataModule, where: str) -> None:
        """Any output suits."""

    def useless(self, metrics: Mapping[str, float], data: DataModule) -> str | None:
        """None: a teacher is compared with the student alone only."""
        return None

    def picture(self, step: Step, data: DataModule, temperature: float) -> Image | None:
        """None: nothing is drawn."""
        return None


def check_task(task: Task, where: str = "task") -> None:
    """Raise a UserError, of one line, where an object is no task that everything else can work with.

    Args:
        task: what the configuration's ``_target_`` made.
        where: its configuration key.
    """
    kind = type(task).__name__
    missing = [name for name in MEMBERS if not hasattr(task, name)]
    if missing:
        raise UserError(
            f"{where}: {kind} lacks {', '.join(missing)}: inherit kd_lightning.tasks.base.BaseTask, which leaves only "
            "name, metrics, monitor, loss and evaluator to give"
        )
    if not all(isinstance(metric, Metric) for metric in task.metrics):
        raise UserError(f"{where}: {kind}.metrics must hold kd_lightning.joints.Metric, one for each figure")
    names = [metric.name for metric in task.metrics]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{where}: {kind}.metrics declares {', '.join(twice)} twice: each figure has a name of its own")
    directed = {metric.name for metric in task.metrics if metric.higher_is_better is not None}
    unknown = [name for name in getattr(task, "choosers", ()) if name not in directed]
    if unknown:
        raise UserError(f"{where}: {kind}.choosers names {unknown[0]!r}, which is none of its metrics with a direction")
    mine = [metric.name for metric in task.metrics if metric.of == STUDENT and metric.higher_is_better is not None]
    if task.monitor not in mine:
        raise UserError(
            f"{where}: {kind}.monitor is {task.monitor!r}, which is none of its metrics of the student with a direction "
            f"({', '.join(mine) or 'it has none'})"
        )
