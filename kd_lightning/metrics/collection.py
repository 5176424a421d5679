"""Any torchmetrics metrics as an evaluator: of the student, of the teacher, and of the student against its teacher."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torchmetrics import Metric as TorchMetric
from torchmetrics.utilities.data import dim_zero_sum

from kd_lightning.batch import Batch
from kd_lightning.errors import UserError
from kd_lightning.metrics.metric import FIDELITY, STUDENT, TEACHER, Metric
from kd_lightning.outputs import ModelOutput

Metrics = Mapping[str, TorchMetric]
"""By name; a ``torchmetrics.MetricCollection`` is one too."""


def declared(metrics: Metrics, fidelity: Metrics, titles: Mapping[str, str], units: Mapping[str, str]) -> list[Metric]:
    """What a task with these metrics declares: directions are torchmetrics' own, values in [0, 1] are shares.

    Each metric of the student is measured of the teacher too, as ``teacher_<name>``.
    """
    found = []
    for of, group in ((STUDENT, metrics), (FIDELITY, fidelity)):
        for name, metric in group.items():
            if "/" in name:
                raise UserError(f"task.metrics: {name!r} has a slash, which parts stage and name: leave it out")
            share = (metric.plot_lower_bound, metric.plot_upper_bound) == (0.0, 1.0)
            higher: bool | None = metric.higher_is_better
            found.append(Metric(name, higher, share, titles.get(name, ""), units.get(name, ""), of))
    for mine in [mine for mine in found if mine.of == STUDENT]:
        title = f"teacher's {mine.heading}"
        found.append(mine._replace(name=f"teacher_{mine.name}", title=title, of=TEACHER, like=mine.name))
    return found


class CollectionEvaluator:
    """Torchmetrics' sums over an evaluation set.

    Args:
        metrics: of a prediction and the target, by name; copied, so that they may serve as the model of many.
        fidelity: of the student's prediction and, in the target's place, the teacher's.
        pair: called as ``pair(output, target)``, gives prediction and target as the metrics take them.
        as_target: makes of a teacher's output what the fidelity metrics take in the target's place.
    """

    def __init__(
        self,
        metrics: Metrics,
        fidelity: Metrics,
        pair: Callable[[ModelOutput, Tensor], tuple[Tensor, Tensor]],
        as_target: Callable[[ModelOutput], Tensor],
    ) -> None:
        self._pair, self._as_target = pair, as_target
        self._metrics = {
            **{name: _fresh(metric) for name, metric in metrics.items()},
            **{name: _fresh(metric) for name, metric in fidelity.items()},
            **{f"teacher_{name}": _fresh(metric) for name, metric in metrics.items()},
        }
        self._names = {STUDENT: list(metrics), FIDELITY: list(fidelity), TEACHER: [f"teacher_{n}" for n in metrics]}
        self._device: torch.device | None = None

    @torch.no_grad()
    def update(self, student: ModelOutput, teacher: ModelOutput | None, batch: Batch) -> None:
        """Add one batch; a metric that cannot take it raises its own error."""
        device = student.logits.device
        if device != self._device:
            self._device = device
            for metric in self._metrics.values():
                metric.to(device)
        self._update(STUDENT, *self._pair(student, batch.target))
        if teacher is not None:
            self._update(TEACHER, *self._pair(teacher, batch.target))
            self._update(FIDELITY, *self._pair(student, self._as_target(teacher)))

    def _update(self, of: str, prediction: Tensor, target: Tensor) -> None:
        for name in self._names[of] if len(target) else ():
            self._metrics[name].update(prediction, target)

    def sync(self, reduce: Callable[[Tensor], Tensor]) -> None:
        """Add up over processes. With ``torch.distributed`` torchmetrics itself does so in ``compute``, which also suits
        metrics that keep all predictions; without, ``reduce`` does, which suits metrics that are sums alone.
        """
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return
        for name, metric in self._metrics.items():
            for state, reduction in metric._reductions.items():  # nothing public tells how a state adds up
                value = getattr(metric, state)
                if reduction is not dim_zero_sum or not isinstance(value, Tensor):
                    raise UserError(
                        f"task.metrics.{name}: is no sum over samples, so it cannot be added over processes"
                    )
                setattr(metric, state, reduce(value))

    def compute(self) -> dict[str, float]:
        """Metrics by name; those that a teacher takes part in only where there was one; NaN without samples."""
        taught = any(self._metrics[name].update_called for name in self._names[TEACHER])
        names = [name for of, group in self._names.items() if of == STUDENT or taught for name in group]
        return {name: self._value(name) for name in names}

    def _value(self, name: str) -> float:
        metric = self._metrics[name]
        if not metric.update_called:
            return math.nan
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchmetrics' remarks on few or constant samples come as NaN too
            value = metric.compute()
        if not isinstance(value, Tensor) or value.numel() != 1:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise UserError(f"task.metrics.{name}: gives {shape}, a metric is one number (average='macro', say)")
        return float(value)


def _fresh(metric: TorchMetric) -> TorchMetric:
    mine = copy.deepcopy(metric)
    mine.reset()
    return mine
