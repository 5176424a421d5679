"""The metrics that a task declares, found by the names under which their figures are kept.

::

    evaluator          metrics.jsonl, TensorBoard         result.json
    acc                val/acc                            metrics: test/acc, best/val_acc
    agreement          val/agreement                      metrics: test/agreement
    teacher_acc        teacher/val_acc                    teacher: test/acc, val/acc       (Metric.like is "acc")
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from kd_lightning.metrics.metric import FIDELITY, STUDENT, TEACHER, Metric
from kd_lightning.metrics.undeclared import guessed


class TaskMetrics(Protocol):
    """What is asked of a task here, see :class:`kd_lightning.joints.Task`; it may have ``choosers``."""

    monitor: str

    @property
    def metrics(self) -> Sequence[Metric]: ...


class Declared:
    """What a task says of its metrics, read from the task itself or from a ``result.json``.

    Args:
        metrics: every figure that the task's evaluator may return; empty for results written before tasks declared
            them, whose metrics are then guessed from their names.
        monitor: name of the one that chooses the best checkpoint.
        mode: its direction where ``metrics`` is empty: "max" or "min".
        choosers: names of those that choose the best checkpoint in its place, the first that there is a figure of.
    """

    def __init__(
        self, metrics: Iterable[Metric], monitor: str, mode: str = "max", choosers: Sequence[str] = ()
    ) -> None:
        self.metrics = tuple(metrics)
        self.monitor, self.mode, self.choosers = monitor, mode, tuple(choosers)
        self._by_name = {metric.name: metric for metric in self.metrics}

    @classmethod
    def of_task(cls, task: TaskMetrics) -> Declared:
        """As a task tells it."""
        return cls(task.metrics, task.monitor, choosers=getattr(task, "choosers", ()))

    @classmethod
    def of_result(cls, result: Mapping[str, Any]) -> Declared:
        """As a ``result.json`` tells it."""
        monitor = result.get("monitor") or {}
        declared = [metric for entry in result.get("declared") or () if (metric := _read(entry)) is not None]
        return cls(declared, str(monitor.get("metric") or ""), str(monitor.get("mode") or "max"))

    def as_plain(self) -> list[dict[str, Any]]:
        """For ``result.json``: one mapping a metric, without what it leaves at the default."""
        plain = []
        for metric in self.metrics:
            defaults = Metric(metric.name, metric.higher_is_better)
            extra = {k: v for k, v in metric._asdict().items() if v != getattr(defaults, k)}
            plain.append({"name": metric.name, "higher_is_better": metric.higher_is_better, **extra})
        return plain

    def __getitem__(self, name: str) -> Metric:
        """The metric of a figure, by its full name or its own: ``test/acc``, ``best/val_acc``, ``val/acc``, ``acc``."""
        short = short_name(name)
        if short in self._by_name:
            return self._by_name[short]
        if self.metrics:
            return Metric(short, None)  # a loss, a learning rate, a time
        return guessed(short, self.monitor, self.mode)

    @property
    def monitored(self) -> Metric:
        """The one that chooses the best checkpoint."""
        return self[self.monitor]

    def chooser(self, figures: Mapping[str, float]) -> Metric:
        """The one of an evaluator's figures that chooses the best checkpoint: the monitored one, unless the task says so."""
        return self[next((name for name in self.choosers if name in figures), self.monitor)]

    def fidelity(self, names: Iterable[str]) -> list[str]:
        """Those of ``names`` (full or short) that compare student and teacher, in the order of declaration."""
        found = [name for name in names if self[name].of == FIDELITY]
        order = {metric.name: place for place, metric in enumerate(self.metrics)}
        return sorted(found, key=lambda name: order.get(short_name(name), len(order)))

    def students(self, figures: Mapping[str, float], prefix: str) -> dict[str, float]:
        """An evaluator's figures without those of the teacher alone, by their full names."""
        return {f"{prefix}{name}": value for name, value in figures.items() if self[name].of != TEACHER}

    def teachers(self, figures: Mapping[str, float], prefix: str) -> dict[str, float]:
        """An evaluator's figures of the teacher alone, by the names of the student's that they compare with."""
        mine = [(self[name], value) for name, value in figures.items()]
        return {f"{prefix}{metric.like or metric.name}": value for metric, value in mine if metric.of == TEACHER}


def short_name(name: str) -> str:
    """The name without its stage: ``test/acc`` and ``best/val_acc`` are ``acc``."""
    return name.rsplit("/", 1)[-1].removeprefix("val_") if "/" in name else name


def _read(entry: Any) -> Metric | None:
    """A metric from a file; what another version has added to it is left out."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        return None
    known = {k: v for k, v in entry.items() if k in Metric._fields}
    return Metric(**{"higher_is_better": None, "of": STUDENT, **known})
