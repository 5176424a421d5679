"""A sweep as a study: the configurations (cells) of one task on one data set, the student alone, the teacher."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from kd_lightning.metrics.declared import Declared
from kd_lightning.metrics.metric import Metric
from kd_lightning.report.study.factors import Factor
from kd_lightning.report.study.reading import Run
from kd_lightning.report.study.statistics import Gain, Spread, corrected, interval, paired_gain, spread


@dataclass(frozen=True)
class Objective:
    """What a search looks for.

    Attributes:
        path: "monitor", the name of a metric, or a place in ``result.json`` ("student.parameters").
        maximize: which way is better.
    """

    path: str
    maximize: bool


@dataclass(eq=False)
class Cell:
    """One configuration: its values of the swept keys and its finished runs, one for each replicate (seed)."""

    id: str
    params: tuple[Any, ...]
    label: str
    runs: dict[tuple, Run]
    expected: int  # runs that the sweep wants of it
    running: list[Run] = field(default_factory=list)  # those under way: only their curves are known
    references: dict[tuple, Run] = field(default_factory=dict)  # the student alone, by replicate

    def values(self, metric: str) -> dict[tuple, float]:
        return {key: run.metrics[metric] for key, run in self.runs.items() if metric in run.metrics}

    def spread(self, metric: str) -> Spread | None:
        return spread(list(self.values(metric).values()))

    def alone(self, metric: str) -> Spread | None:
        """The student alone in this cell's setting: its own runs, or else the reference that the results name."""
        mine = [run.metrics[metric] for run in self.references.values() if metric in run.metrics]
        named = {str(run.baseline): _named_reference(run, metric) for run in self.runs.values()}
        return spread(mine) if mine else spread([value for value in named.values() if value is not None])

    def reference(self, replicate: tuple, metric: str) -> float | None:
        """The student alone of one replicate: its own run, or where there is none the one that the result names."""
        if self.references:
            return self.references[replicate].metrics.get(metric) if replicate in self.references else None
        return _named_reference(self.runs[replicate], metric)

    def difference(self, metric: str) -> Gain | None:
        """Difference to the student alone, with a 95 % interval where pairs allow one."""
        references = {k: run.metrics[metric] for k, run in self.references.items() if metric in run.metrics}
        if references:
            return paired_gain(self.values(metric), references)
        pairs = [(value, self.reference(key, metric)) for key, value in self.values(metric).items()]
        differences = [value - reference for value, reference in pairs if reference is not None]
        return interval(differences, "one reference") if differences else None


@dataclass(eq=False)
class Study:
    """The runs of one task on one data set: what one page of the report shows."""

    title: str
    data: str
    task: str
    declared: Declared  # the task's metrics, and which of them is monitored
    factors: list[Factor]
    cells: list[Cell]
    alone: list[Cell]
    started: list[Cell]  # configurations of which nothing has finished yet, but something runs
    runs: list[Run]  # every run and every expected run, finished or not
    teacher_runs: list[Run]
    commands: list[str]
    folders: list[Path]
    duplicates: int = 0
    objectives: tuple[Objective, ...] = ()  # of a search
    _found_gains: dict[str, dict[str, Gain]] = field(default_factory=dict, repr=False)

    @property
    def metric(self) -> str:
        """What is monitored, without prefix: "acc"."""
        return self.declared.monitor

    @property
    def val_metric(self) -> str:
        return f"best/val_{self.metric}"

    @property
    def test_metric(self) -> str:
        return f"test/{self.metric}"

    @cached_property
    def metrics(self) -> list[str]:
        """The figures that some run has, the monitored one on test first."""
        names = {name for cell in [*self.cells, *self.alone] for run in cell.runs.values() for name in run.metrics}
        names = {name for name in names if name.startswith("test/") or name.startswith("best/val_")}
        return sorted(names, key=lambda name: (name != self.test_metric, name != self.val_metric, name))

    @property
    def counts(self) -> Counter:
        return Counter(run.status for run in self.runs)

    def reads(self, metric: str) -> Metric:
        """How a figure is read, by its full name or a curve's tag."""
        return self.declared[metric]

    def title_of(self, metric: str) -> str:
        """A figure by its stage and heading: "test accuracy", "validation accuracy" (of the best checkpoint)."""
        stage = {"test": "test", "best": "validation", "val": "validation"}.get(metric.split("/")[0], "")
        return f"{stage} {self.reads(metric).heading}".strip()

    def gain(self, cell: Cell, metric: str) -> Gain | None:
        """What ``cell`` gains over the student alone: positive is better, whichever direction the metric has."""
        return self._gains(metric).get(cell.id)

    def _gains(self, metric: str) -> dict[str, Gain]:
        if metric not in self._found_gains:
            sign = self.reads(metric).sign
            found = {cell.id: gain for cell in self.cells if (gain := cell.difference(metric)) is not None}
            self._found_gains[metric] = corrected({id: gain.times(sign) for id, gain in found.items()})
        return self._found_gains[metric]

    @cached_property
    def chosen(self) -> Cell | None:
        """The configuration with the best mean of the monitored metric on validation data, never on test.

        Only configurations with as many figures as the fullest one compete: one lucky seed must not win while others
        are missing or have diverged.
        """
        sign = self.declared.monitored.sign
        scores = [(cell, summary) for cell in self.cells if (summary := cell.spread(self.val_metric))]
        full = max((summary.n for _, summary in scores), default=0)
        scores = [(sign * summary.mean, cell) for cell, summary in scores if summary.n == full]
        return max(scores, key=lambda score: score[0], default=(None, None))[1]

    def teachers(self, cells: Iterable[Cell] | None = None) -> list[dict[str, Any]]:
        """The distinct teachers of the given cells (of all, by default), as ``result.json`` describes them."""
        found: dict[str, dict[str, Any]] = {}
        for cell in self.cells if cells is None else cells:
            for run in cell.runs.values():
                if run.teacher:
                    found.setdefault(str(run.teacher.get("fingerprint") or run.teacher.get("name")), run.teacher)
        return list(found.values())

    def teacher_spread(self, metric: str, cell: Cell | None = None) -> Spread | None:
        name = metric.replace("best/val_", "val/")
        found = self.teachers(None if cell is None else [cell])
        values = [teacher[name] for teacher in found if isinstance(teacher.get(name), (int, float))]
        return spread(values)


def _named_reference(run: Run, metric: str) -> float | None:
    value = run.baseline.get(metric, run.baseline.get(metric.replace("best/val_", "val/")))
    return float(value) if isinstance(value, (int, float)) else None
